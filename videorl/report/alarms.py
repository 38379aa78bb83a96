"""What the guard of a run noticed, for its report."""

from __future__ import annotations

from html import escape

from videorl.report.contents import RunContents

DONE = {"warn": "warned", "stop": "stopped the run", "rollback": "sent the run back"}
"""What the guard did, by `guard.action`."""


def guard_section(run: RunContents) -> str:
    """Return the alarms and rollbacks as tables; empty if there was none."""
    if not run.alarms:
        return ""
    rows = "".join(
        f"<tr><td>{alarm['step']}</td><td>{escape(str(alarm['rule']))}</td>"
        f"<td>{escape(str(alarm['reason']))}</td>"
        f"<td>{escape(DONE.get(alarm['action'], str(alarm['action'])))}</td></tr>"
        for alarm in run.alarms
    )
    head = "<tr><th>step</th><th>rule</th><th>what was found</th><th>the guard</th></tr>"
    before = max(int(alarm["before"]) for alarm in run.alarms)
    kept = f" The last weights that broke no rule are those of step {before}." if before else ""
    back = "".join(
        f"<li>back to step {row['to']}, with {row['rate_factor']:g} times the learning rate</li>"
        for row in run.rollbacks
    )
    return (
        f"<h2>Alarms of the guard</h2><p>Found on held-out prompts.{kept}</p>"
        f'<div class="scroll"><table>{head}{rows}</table></div>'
        f"{f'<ul>{back}</ul>' if back else ''}"
    )

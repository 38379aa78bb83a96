"""Pool sizes, faults and swaps of the reference, step by step."""

from __future__ import annotations

from dataclasses import dataclass

from videorl.report.contents import RunContents

FAULTS = ("/dropped_", "not_finite", "/skipped", "_replaced", "_fenced", "repeated_for_speed")
"""Parts of the names of metrics that count something bad."""
SIZES = ("_workers", "_starting", "_queued")
"""Ends of the names of pool metrics that are shown."""

Series = list[tuple[int, float | None]]


@dataclass(frozen=True)
class Timeline:
    """What happened beside learning."""

    pools: dict[str, Series]
    """Such as `generator workers` -> (step, number)."""
    faults: dict[str, Series]
    """Metric -> (step, count), of steps where it was not 0."""
    swaps: list[int]
    """Steps after which the reference became another version."""


def timeline(run: RunContents) -> Timeline:
    """Return the time line of a run so far."""
    pools: dict[str, Series] = {}
    faults: dict[str, Series] = {}
    for name in run.metrics():
        if any(part in name for part in FAULTS):
            bad: Series = [(step, value) for step, value in run.series(name) if value]
            if bad:
                faults[name] = bad
        elif name.startswith("pool/") and name.endswith(SIZES):
            pools[name.removeprefix("pool/").replace("_", " ")] = run.series(name)
    return Timeline(pools, faults, run.reference_swaps())

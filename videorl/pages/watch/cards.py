"""A group as HTML: its candidates beside one another, their scores, and what was made of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from videorl.report.charts import number, signed
from videorl.report.video_cells import clipped
from videorl.watch.alerts import Alert
from videorl.watch.fixed_prompts import Strip
from videorl.watch.groups import CandidateView, GroupView

WORDS = {
    "trained": "trained on",
    "all_scores_equal": "no pair: all scores are equal",
    "margin_too_small": "no pair: the margin is below selection.min_margin",
    "none_dominates": "no pair: no candidate is at least as good in every dimension",
    "too_few_candidates": "no pair: fewer than two candidates were left",
    "group_lost": "dropped: the group failed on every worker that tried it",
    "prompt_rejected": "dropped: the encoder refused the prompt",
}
"""Outcome of a prompt -> what it means; another one is shown as it is."""


def alert_cards(found: Sequence[Alert]) -> str:
    """Return alerts as HTML; all text in them is escaped."""
    return "".join(
        f'<div class="note alert"><b>{escape(alert.title)}</b>{escape(clipped(alert.reason))}</div>'
        for alert in found
    )


def group_card(
    group: GroupView, files: str, selection: Mapping[str, Any], shown: Collection[tuple[str, str]]
) -> str:
    """Return a group as HTML; all text in it is escaped.

    Args:
        group: What to show.
        files: Address of the run's files for the browser.
        selection: The recipe's section, for the rule.
        shown: (kind, dimension) of the scores that are shown, in this order.
    """
    columns = group.candidates
    rows = [
        _row("", [_video(candidate, files) for candidate in columns], "videos"),
        _row("", [_role(candidate) for candidate in columns], "roles"),
        _row("total", [_number(candidate.total) for candidate in columns], "total"),
    ]
    for kind, dimension in shown:
        values = [candidate.scores.get((kind, dimension)) for candidate in columns]
        if any(value is not None for value in values):
            note = " <i>unseen</i>" if kind == "unseen" else ""
            name = escape(dimension.replace("_", " ")) + note
            rows.append(_row(name, [_number(value, kind) for value in values], kind))
    versions = [
        f'<span title="{escape(c.version_digest)}">version {c.version_step}</span>'
        f'<br><span title="{escape(c.id)}">seed …{c.seed % 10_000:04d}</span>'
        for c in columns
    ]
    rows.append(_row("", versions, "facts"))
    table = f'<div class="scroll"><table>{"".join(rows)}</table></div>' if columns else ""
    return (
        f'<article class="group card" data-step="{group.step}">'
        f"<header><b>{escape(clipped(group.prompt))}</b>"
        f'<span class="soft">step {group.step} · prompt {group.prompt_index}</span></header>'
        f'<p class="why">{_why(group, selection)}</p>{table}</article>'
    )


def _why(group: GroupView, selection: Mapping[str, Any]) -> str:
    names = {candidate.id: f"c{candidate.index:02d}" for candidate in group.candidates}
    rule = str(selection.get("rule", "")).replace("_", " ")
    said = [escape(WORDS.get(group.outcome, group.outcome.replace("_", " ")))]
    for chosen, rejected, margin in group.pairs[:3]:
        said.append(
            f"{names.get(chosen, escape(chosen))} over {names.get(rejected, escape(rejected))}, "
            f'<b class="numbers">margin {margin:.3f}</b>'
        )
    if len(group.pairs) > 3:
        said.append(f"{len(group.pairs) - 3} more pairs")
    if group.pairs and rule:
        said.append(f"rule: {escape(rule)}")
    said += [f"{count} lost: {escape(reason)}" for reason, count in group.dropped.items()]
    if group.error:
        said.append(f'<span class="bad">{escape(clipped(group.error))}</span>')
    return " · ".join(part for part in said if part)


def _row(name: str, cells: list[str], css: str) -> str:
    return f'<tr class="{css}"><th>{name}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _number(value: float | None, kind: str = "reward") -> str:
    if value is None:
        return ""
    return signed(value) if kind == "reward" else number(value)


def _role(candidate: CandidateView) -> str:
    if candidate.role == "learned":
        return f'<span class="role chosen">learned, weight {candidate.weight:.2f}</span>'
    css = candidate.role.split(" ")[0]
    name = f"c{candidate.index:02d}"
    return f'{name} <span class="role {css}">{candidate.role}</span>' if css else name


def _video(candidate: CandidateView, files: str) -> str:
    if candidate.is_missing:
        return '<div class="missing">the file is missing</div>'
    if candidate.video is None:
        return '<div class="missing">not kept<br>(archive.videos)</div>'
    return video(files, f"archive/{candidate.video}", candidate.role.split(" ")[0])


def video(files: str, path: str, css: str = "") -> str:
    """Return a video that `watch.js` plays in step with the others of its group.

    Args:
        files: Address of the run's files for the browser.
        path: The file below them.
        css: Its class.
    """
    return (
        f'<video class="{css}" src="{files}/{quote(path)}" muted playsinline '
        'preload="metadata"></video>'
    )


def strip_rows(strips: list[Strip], files: str) -> str:
    """Return the film strips: a row per prompt, a column per step."""
    if not strips:
        return ""
    steps = "".join(f"<th>step {frame.step}</th>" for frame in strips[0].frames)
    rows = []
    for strip in strips:
        cells = "".join(
            f"<td>{_frame(frame.video, files)}"
            f'<div class="numbers">{_number(frame.scores.get("total"))}</div></td>'
            for frame in strip.frames
        )
        rows.append(
            f'<tr class="group"><th>{escape(clipped(strip.prompt))}<br><span class="soft small">'
            f"seed {strip.seed}</span></th>{cells}</tr>"
        )
    return (
        '<div class="scroll card"><table class="strips" '
        f'style="--frames: {len(strips[0].frames)}"><tr><th></th>'
        f"{steps}</tr>{''.join(rows)}</table></div>"
    )


def _frame(path: str | None, files: str) -> str:
    return video(files, path) if path else '<div class="missing">missing</div>'

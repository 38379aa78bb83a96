"""A comparison as one self-contained HTML page, in the looks of the report."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from videorl.comparison.compare import (
    SCORES,
    SEEDS,
    Comparison,
    cost_cells,
    score_cells,
    seeds_cells,
    shown,
)
from videorl.comparison.runs import ComparedRun
from videorl.comparison.scores import Metric
from videorl.report.charts import interval_bar, smooth
from videorl.report.contents import VideoPair
from videorl.report.plots import Line, line_plot
from videorl.report.style import CSS, SCRIPT
from videorl.report.verdicts import label
from videorl.report.video_cells import TINY_PX, clipped, video_cell, width_px

OWN_CSS = """
td.run, th.run { text-align: left; }
td.run { color: var(--soft); white-space: normal; overflow-wrap: anywhere; min-width: 170px; }
th { vertical-align: bottom; overflow-wrap: anywhere; min-width: 64px; }
th.than { min-width: 170px; }
.curves img { width: 100%; border: 1px solid var(--rule); border-radius: 8px; display: block; }
.curves { display: grid;
  grid-template-columns: repeat(auto-fill, minmax(min(480px, 100%), 1fr)); gap: 14px;
}
.sides.many { grid-template-columns: repeat(auto-fit, minmax(160px, 1fr)); }
.videos.rows { grid-template-columns: 1fr; }
"""
CURVES = ("reward/", "unseen/", "learn/accuracy", "dpo/winner_error_change")
"""Prefixes of the metrics of a step that are drawn."""


def page(comparison: Comparison, num_videos: int) -> str:
    """Return the page; of each run it embeds the videos of at most `num_videos` prompts."""
    names = [run.label for run in comparison.runs]
    title = " · ".join(names)
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in comparison.notes)
    body = [
        f"<h1>{escape(title)}</h1>{notes}",
        _scores(comparison),
        _seeds(comparison),
        "<h2>Cost</h2>",
        _table(
            ("run", "steps", "wall time of training", "candidates"),
            [(run.label, *cost_cells(run)) for run in comparison.runs],
        ),
        _videos(comparison.runs, num_videos),
        _curves(comparison.runs),
        _settings(comparison),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{OWN_CSS}</style></head>"
        f"<body>{''.join(body)}<script>{SCRIPT}</script></body></html>\n"
    )


def _scores(comparison: Comparison) -> str:
    if not comparison.metrics:
        return "<p>None of these runs was scored on held-out prompts.</p>"
    found = [measured for metric in comparison.metrics for measured in metric.runs.values()]
    scores = [metric for metric in comparison.metrics if metric.kind != "unseen"]
    ends = [
        abs(end)
        for metric in scores
        for measured in metric.runs.values()
        if (against := measured.against_first)
        for end in (against.interval.low, against.interval.high)
    ]
    is_unpaired = any(one.against_first and not one.against_first.paired for one in found)
    rows = [_metric_rows(metric, comparison.runs, max(ends, default=0) or 1.0) for metric in scores]
    unseen = [metric for metric in comparison.metrics if metric.kind == "unseen"]
    if unseen:
        rows.append('<tr class="group"><td colspan="8">unseen: measured, never optimised</td></tr>')
    rows += [_metric_rows(metric, comparison.runs, None) for metric in unseen]
    first = escape(comparison.runs[0].label)
    named = "".join(f"<th>{name}</th>" for name in SCORES)
    than = f'<th class="than">less {first}, 95 % interval</th><th></th>'
    head = f'<th></th><th class="run">run</th>{named}{than}'
    how = "unpaired where marked" if is_unpaired else "the same prompts and seeds"
    return (
        f"<h2>Held-out prompts</h2><p class='soft'>Means over prompts; differences: {how}.</p>"
        f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
    )


def _seeds(comparison: Comparison) -> str:
    if not comparison.seeds:
        return ""
    note = "Runs that differ in their seed alone; 95 % intervals by Student's t over seeds."
    table = _table(SEEDS, [seeds_cells(row) for row in comparison.seeds])
    return f"<h2>Over training seeds</h2><p class='soft'>{note}</p>{table}"


def _metric_rows(metric: Metric, runs: Sequence[ComparedRun], reach: float | None) -> str:
    """Return a row per run; with the reach of an axis, intervals are drawn too."""
    rows, name = [], label(metric.name)
    for run in runs:
        measured = metric.runs[run.label]
        *own, against = score_cells(measured, metric.kind)
        tone, bar = "", ""
        if reach is not None and measured.against_first:
            ends = measured.against_first.interval
            # Whether more of an unseen metric is better is not known.
            tone = "up" if ends.low > 0 else "down" if ends.high < 0 else ""
            bar = interval_bar(ends.low, ends.mean, ends.high, reach)
        rows.append(
            f'<tr class="{"total" if metric.kind == "total" else ""}"><td>{escape(name)}</td>'
            f'<td class="run">{escape(run.label)}</td>{"".join(f"<td>{cell}</td>" for cell in own)}'
            f'<td class="{tone}">{against}</td><td>{bar}</td></tr>'
        )
        name = ""
    return "".join(rows)


def _settings(comparison: Comparison) -> str:
    names = [run.label for run in comparison.runs]
    rows = [
        (name, *(shown(values, run) for run in names))
        for name, values in comparison.settings.items()
    ]
    table = _table(("setting", *names), rows) if rows else "<p>All settings are the same.</p>"
    return f"<h2>Settings that differ</h2>{table}"


def _videos(runs: Sequence[ComparedRun], most: int) -> str:
    """Return, prompt by prompt, the base of the first run and the aligned policy of each."""
    by_seed = [{(pair.prompt, pair.seed): pair for pair in run.contents.videos} for run in runs]
    shared = [key for key in by_seed[0] if all(key in pairs for pairs in by_seed)][:most]
    if not shared:
        return "<h2>Videos</h2><p>No prompt and seed has videos in all of these runs.</p>"
    rows = [(key, [pairs[key] for pairs in by_seed]) for key in shared]
    paths = [pair.after for _, pairs in rows for pair in pairs if pair.after]
    is_tiny = max(map(width_px, paths), default=0) <= TINY_PX
    css = "videos" if is_tiny and len(runs) == 2 else "videos rows"
    shown_rows = "".join(_video_row(key, pairs, runs) for key, pairs in rows)
    return (
        "<h2>Videos</h2><p>The same held-out prompts and seeds. "
        '<button id="restart">Play all from the start</button></p>'
        f'<div class="{css}">{shown_rows}</div>'
    )


def _video_row(
    key: tuple[str, int], pairs: Sequence[VideoPair], runs: Sequence[ComparedRun]
) -> str:
    cells = [video_cell(f"base of {runs[0].label}", pairs[0].before, pairs[0].before_score)]
    cells += [
        video_cell(run.label, pair.after, pair.after_score)
        for run, pair in zip(runs, pairs, strict=True)
    ]
    return (
        f'<div class="pair"><p>{escape(clipped(key[0]))}</p>'
        f'<div class="sides many">{"".join(cells)}</div>'
        f"<small>seed {key[1]}</small></div>"
    )


def _curves(runs: Sequence[ComparedRun]) -> str:
    names = dict.fromkeys(name for run in runs for name in run.contents.metrics())
    drawn = []
    for name in names:
        lines = [
            Line(run.label, smooth(series), behind=(series,))
            for run in runs
            if (series := run.contents.series(name))
        ]
        if name.startswith(CURVES) and len(lines) > 1:
            svg = line_plot(name, lines, x_name="step", y_name=label(name))
            # As an image, so that the style of a plot does not reach the page.
            data = base64.b64encode(svg.encode()).decode()
            drawn.append(
                f'<img alt="{escape(name, quote=True)}" src="data:image/svg+xml;base64,{data}">'
            )
    return f'<h2>While they learned</h2><div class="curves">{"".join(drawn)}</div>' if drawn else ""


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return f'<div class="scroll"><table>{"".join(lines)}</table></div>'

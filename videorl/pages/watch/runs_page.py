"""The page of all runs of a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from nicegui import ui

from videorl.files.content import bytes_in_words
from videorl.pages.frame import address, first_paint, layout
from videorl.pages.watch.curves import PALETTE, base_options, legend
from videorl.report.charts import fixed
from videorl.report.video_cells import clipped
from videorl.run.overview import RunOverview
from videorl.watch.all_runs import METRIC, RunsReader

LOOK_S = 10.0
"""How often the page looks at the runs."""
COLUMNS = ("run", "state", "step", "reward", "held-out", "disk")
WAITING = '<p class="soft">looking at the runs …</p>'


async def show_runs(root: Path, reader: RunsReader) -> None:
    """Build the page, which follows the folder while it is open.

    Args:
        root: The folder.
        reader: Of its runs.
    """
    with layout(f"runs in {root}"):
        known = _table(reader.last.runs) if reader.last else WAITING
        table = ui.html(known, sanitize=False).classes("full-width")
        place = ui.element("div").classes("full-width")
    charts: list[ui.echart] = []

    async def look() -> None:
        found = await asyncio.to_thread(reader.read)
        if table.is_deleted:
            return
        table.content = _table(found.runs)
        options = _overlay(found.curves)
        if found.curves and not charts:
            with place:
                charts.append(ui.echart(options).classes("overlay card"))
        elif charts and charts[0].options != options:
            charts[0].options.clear()
            charts[0].options.update(options)
            charts[0].update()

    ui.timer(LOOK_S, look)
    first_paint(f"runs in {root}", known)


def _table(found: Mapping[str, RunOverview]) -> str:
    if not found:
        return "<p>No run is here yet: <code>videorl train RECIPE</code> makes one.</p>"
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    rows, runs = [], address("/run")
    for name, facts in found.items():
        link = f'<a href="{runs}/{quote(name)}">{escape(name)}</a>'
        held_out = "" if facts.after is None else f"{fixed(facts.before)} → {fixed(facts.after)}"
        of = f" of {facts.num_steps}" if facts.num_steps else ""
        cells = (
            link
            + (
                f'<br><span class="bad">{escape(clipped(facts.problem))}</span>'
                if facts.problem
                else ""
            ),
            f'<span class="state {facts.state}">{facts.state}</span>',
            f"{facts.step}{of}",
            "" if facts.reward is None else fixed(facts.reward),
            held_out,
            bytes_in_words(facts.bytes_on_disk),
        )
        named = zip(COLUMNS, cells, strict=True)
        rows.append(f"<tr>{''.join(_cell(name, cell) for name, cell in named)}</tr>")
    table = f'<table class="runs"><tr>{head}</tr>{"".join(rows)}</table>'
    return f'<div class="card scroll">{table}</div>'


def _cell(name: str, content: str) -> str:
    """Return a cell; its name is shown where there is no room for a table."""
    told = "" if name in ("run", "state") else f' data-name="{name}"'
    return f"<td{told}>{content}</td>"


def _overlay(curves: Mapping[str, list[tuple[int, float | None]]]) -> dict[str, object]:
    lines = [
        {"type": "line", "name": name, "data": series, "showSymbol": False, "sampling": "lttb"}
        for name, series in curves.items()
    ]
    shared = {**base_options(METRIC), "color": list(PALETTE), "legend": legend(lines=True)}
    return {**shared, "series": lines}

"""The page of all runs of a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote

from nicegui import ui

from videorl.pages.frame import address, layout
from videorl.pages.watch.curves import SOFT, base_options
from videorl.report.charts import fixed
from videorl.run.folder import RunFolder
from videorl.run.overview import RunOverview, overview
from videorl.run.sinks import read_metrics

METRIC = "reward/total"


async def show_runs(root: Path, folders: Mapping[str, Path]) -> None:
    """Build the page.

    Args:
        root: The folder.
        folders: Name -> run folder, of all runs in it.
    """
    with layout(f"runs in {root}"):
        place = ui.column().classes("full-width")
        with place:
            ui.spinner()
            ui.label(f"looking at {len(folders)} runs").classes("soft")
    await ui.context.client.connected()
    found, curves = await asyncio.to_thread(_look, dict(folders))
    place.clear()
    with place:
        ui.html(_table(found), sanitize=False).classes("card full-width scroll")
        if curves:
            ui.echart(_overlay(curves)).classes("overlay card")


def _look(
    folders: dict[str, Path],
) -> tuple[dict[str, RunOverview], dict[str, list[tuple[int, float | None]]]]:
    found = {name: overview(folder) for name, folder in folders.items()}
    curves: dict[str, list[tuple[int, float | None]]] = {}
    for name, folder in folders.items():
        metrics = RunFolder(folder).metrics
        if not found[name].problem and metrics.exists():
            rows = read_metrics(metrics)
            if series := [(row["step"], row[METRIC]) for row in rows if METRIC in row]:
                curves[name] = series
    return found, curves


def _table(found: Mapping[str, RunOverview]) -> str:
    if not found:
        return "<p>No run is here yet: <code>videorl train RECIPE</code> makes one.</p>"
    head = "".join(
        f"<th>{name}</th>" for name in ("run", "state", "step", "reward", "held-out", "disk")
    )
    rows = []
    for name, facts in found.items():
        link = f'<a href="{address("/run/" + quote(name))}">{escape(name)}</a>'
        held_out = "" if facts.after is None else f"{fixed(facts.before)} → {fixed(facts.after)}"
        of = f" of {facts.num_steps}" if facts.num_steps else ""
        cells = (
            link
            + (f'<br><span class="bad">{escape(facts.problem)}</span>' if facts.problem else ""),
            f'<span class="state {facts.state}">{facts.state}</span>',
            f"{facts.step}{of}",
            "" if facts.reward is None else fixed(facts.reward),
            held_out,
            f"{facts.bytes_on_disk / 1e6:.1f} MB",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return f'<table class="runs"><tr>{head}</tr>{"".join(rows)}</table>'


def _overlay(curves: Mapping[str, list[tuple[int, float | None]]]) -> dict[str, object]:
    lines = [
        {"type": "line", "name": name, "data": series, "showSymbol": False, "sampling": "lttb"}
        for name, series in curves.items()
    ]
    legend = {"type": "scroll", "left": 130, "top": 0, "textStyle": {"color": SOFT}}
    return {**base_options(METRIC), "legend": legend, "series": lines}

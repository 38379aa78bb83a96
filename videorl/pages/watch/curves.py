"""Curves of what each step logged, drawn by ECharts and redrawn while the run writes."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

from nicegui import ui

from videorl.report.charts import chart, smooth
from videorl.report.contents import RunContents
from videorl.watch.timeline import Series, timeline

FIRST_CHOICE = (
    "reward/total",
    "evaluation/reward/total",
    "unseen/dynamic_degree",
    "pairs/margin",
    "learn/accuracy",
)
"""Shown beside the reward's dimensions until somebody chooses."""
SOFT, ACCENT, BAD = "#8a8f98", "#4b8fd6", "#d0634f"
"""Colours that can be read on light and dark ground."""
PALETTE = ("#4b8fd6", "#c58b3b", "#57a773", "#9b7bd0", "#4aa9a5", "#b0698f")
"""Of lines that stand for pools or runs, likewise."""
_STYLES = {"workers": (2.4, "solid"), "starting": (1.2, "dotted"), "queued": (1.2, "dashed")}
"""Of a pool's lines: width in pixels, and kind. The ready workers stand out."""


PICTURE_POINTS = 120
"""Points of a chart that is drawn before ECharts is there, at most."""


SMOOTHED_POINTS = 1000
"""Points of a smoothed line, at most: smoothing takes the square of their number."""


def first_choice(names: list[str]) -> list[str]:
    """Return the metrics that are drawn at first, the reward before all others."""
    rewards = [name for name in names if name.startswith("reward/")]
    chosen = dict.fromkeys([*rewards, *FIRST_CHOICE])
    shown = [name for name in chosen if name in names] or names[:6]
    return sorted(shown, key=lambda name: name != "reward/total")


def _picture(run: RunContents, name: str, swaps: list[int]) -> str:
    """Return a chart as a picture in HTML, which a browser shows before it has any script."""
    series = run.series(name)
    every = max(1, -(-len(series) // PICTURE_POINTS))
    band = run.band(name)
    drawn = chart(name, series[::every], swaps=swaps, band=band[::every], is_smoothed=not band)
    return f'<div class="drawn">{drawn}</div>'


class Curves:
    """A choice of metrics, and a chart of each; made where it is called.

    Args:
        run: What is drawn.
        is_first: The page is being made: ECharts, a megabyte, is left for when it is there.
    """

    def __init__(self, run: RunContents, *, is_first: bool) -> None:
        self._run = run
        names = run.metrics()
        self._choice = ui.select(
            names,
            value=first_choice(names),
            multiple=True,
            label="metrics",
            on_change=self._draw,
            with_input=True,
        ).classes("metric-choice")
        self._choice.props("use-chips dense outlined")
        self._grid = ui.element("div").classes("charts")
        self._cells: dict[str, ui.element] = {}
        self._charts: dict[str, ui.echart] = {}
        self._pictures: list[str] = []
        self._draw(is_alive=not is_first)

    @property
    def html(self) -> str:
        """The charts as pictures."""
        cells = (f'<div class="chart card">{picture}</div>' for picture in self._pictures)
        return f'<div class="charts">{"".join(cells)}</div>'

    def come_alive(self) -> None:
        """Lay charts that can be asked and zoomed over the pictures."""
        for name, cell in self._cells.items():
            if name not in self._charts:
                with cell:
                    self._charts[name] = ui.echart(_options(name, self._run))

    def update(self, run: RunContents) -> None:
        """Show what a run has written meanwhile."""
        if run is self._run:
            return
        was_empty = not self._choice.options
        self._run = run
        names = run.metrics()
        if names != self._choice.options:
            kept = [name for name in self._choice.value if name in names]
            self._choice.set_options(names, value=first_choice(names) if was_empty else kept)
        for name, shown in self._charts.items():
            shown.options.update(_options(name, run))
            shown.update()

    def _draw(self, _: object = None, *, is_alive: bool = True) -> None:
        self._grid.clear()
        self._cells, self._charts = {}, {}
        swaps = self._run.reference_swaps()
        self._pictures = [_picture(self._run, name, swaps) for name in self._choice.value]
        with self._grid:
            for name, picture in zip(self._choice.value, self._pictures, strict=True):
                with ui.element("div").classes("chart card") as cell:
                    ui.html(picture, sanitize=False)
                self._cells[name] = cell
            if not self._cells:
                text = "No metric yet: a run writes the first ones when its first step ends."
                ui.label(text if not self._run.metrics() else "No metric is chosen.").classes(
                    "soft"
                )
        if is_alive:
            self.come_alive()


def _options(name: str, run: RunContents) -> dict[str, Any]:
    series = run.series(name)
    swaps = [{"xAxis": step} for step in run.reference_swaps()]
    mark = {
        "silent": True,
        "symbol": "none",
        "label": {"show": False},
        "lineStyle": {"color": SOFT, "type": "dotted", "width": 1},
        "data": swaps,
    }
    line = {"type": "line", "showSymbol": len(series) < 3, "sampling": "lttb"}
    return {
        **base_options(name),
        "series": [
            *_interval(run.band(name)),
            {
                **line,
                "name": "each step",
                "data": series,
                "lineStyle": {"width": 1, "opacity": 0.4},
                "color": ACCENT,
                "markLine": mark,
            },
            {
                **line,
                "name": "smoothed",
                "data": smooth(_thinned(series)),
                "lineStyle": {"width": 2.2},
                "color": ACCENT,
            },
        ],
    }


def _interval(band: list[tuple[int, float, float]]) -> list[dict[str, Any]]:
    """Return two lines, with the ground between them filled; none where there is no interval."""
    if not band:
        return []
    line = {"type": "line", "symbol": "none", "lineStyle": {"opacity": 0}, "color": ACCENT}
    line |= {"stack": "interval", "stackStrategy": "all"}
    return [
        {**line, "name": "from", "data": [(x, low) for x, low, _ in band]},
        {
            **line,
            "name": "width of the interval",
            "data": [(x, high - low) for x, low, high in band],
            "areaStyle": {"opacity": 0.18},
        },
    ]


def _thinned(series: Series) -> Series:
    """Return the means of equal parts, where there are so many steps that smoothing takes long."""
    size = -(-len(series) // SMOOTHED_POINTS)
    if size <= 1:
        return series
    thinned: Series = []
    for start in range(0, len(series), size):
        part = series[start : start + size]
        known = [value for _, value in part if value is not None]
        thinned.append((part[len(part) // 2][0], fmean(known) if known else None))
    return thinned


def base_options(title: str) -> dict[str, Any]:
    """Return the options that all our charts share: axes, grid, colours for any ground."""
    axis = {
        "axisLabel": {"color": SOFT, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": SOFT}},
        "splitLine": {"lineStyle": {"color": SOFT, "opacity": 0.18}},
    }
    return {
        "animation": False,
        "title": {"text": title, "textStyle": {"color": SOFT, "fontSize": 13}, "left": 4, "top": 2},
        "grid": {"left": 8, "right": 16, "top": 40, "bottom": 4, "containLabel": True},
        "tooltip": {"trigger": "axis", "confine": True},
        "xAxis": {**axis, "type": "value", "minInterval": 1, "max": "dataMax"},
        "yAxis": {**axis, "type": "value", "scale": True},
    }


def legend(*, lines: bool) -> dict[str, Any]:
    """Return the options of a legend; that of lines shows their kind, without a symbol on it."""
    shown = {"itemStyle": {"opacity": 0}, "itemWidth": 28} if lines else {}
    return {"type": "scroll", "left": 130, "top": 0, "textStyle": {"color": SOFT}, **shown}


def draw_timeline(run: RunContents) -> None:
    """Draw pool sizes and faults over the steps, with the swaps of the reference as lines."""
    found = timeline(run)
    mark = {
        "silent": True,
        "symbol": "none",
        "label": {"show": False},
        "lineStyle": {"color": SOFT, "type": "dotted"},
        "data": [{"xAxis": step} for step in found.swaps],
    }
    pools = _pool_lines(found.pools)
    faults = [
        {"type": "scatter", "name": name, "data": series, "symbolSize": 9}
        for name, series in found.faults.items()
    ]
    steps = [row["step"] for row in run.rows]
    reach = {"min": min(steps, default=0), "max": max(steps, default=1)}
    for title, series in (("Worker pools", pools), ("Faults", faults)):
        if not series:
            ui.label(f"{title}: none so far.").classes("soft")
            continue
        options = base_options(title)
        names = [line["name"] for line in series]  # without the swaps, of which a sentence tells
        options["legend"] = {**legend(lines=series is pools), "data": names}
        options["xAxis"] |= reach
        options["yAxis"] |= {"minInterval": 1, "min": 0}
        holder = {"type": "line", "name": "reference swapped", "data": [], "color": SOFT}
        options["series"] = [*series, {**holder, "markLine": mark}]
        ui.echart(options).classes("timeline card")
    if found.ending:
        ui.label(" · ".join(found.ending)).classes("soft small")
    swaps = ", ".join(map(str, found.swaps)) or "none yet"
    ui.label(f"The reference became the policy after steps: {swaps} (dotted lines).").classes(
        "soft small"
    )


def _pool_lines(pools: Mapping[str, Series]) -> list[dict[str, Any]]:
    """Return a colour per pool and a kind of line per state; a state that never was is left out."""
    names = list(dict.fromkeys(name.rpartition(" ")[0] for name in pools))
    lines: list[dict[str, Any]] = []
    for name, series in pools.items():
        pool, _, what = name.rpartition(" ")
        width, kind = _STYLES[what]
        if what == "workers" or any(value for _, value in series):
            lines.append(
                {
                    "type": "line",
                    "step": "end",
                    "showSymbol": False,
                    "name": name,
                    "data": series,
                    "color": PALETTE[names.index(pool) % len(PALETTE)],
                    "lineStyle": {"width": width, "type": kind},
                }
            )
    return lines

"""Curves of what each step logged, drawn by ECharts and redrawn while the run writes."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from videorl.report.charts import smooth
from videorl.report.contents import RunContents
from videorl.watch.timeline import timeline

FIRST_CHOICE = ("reward/total", "unseen/dynamic_degree", "pairs/margin", "learn/accuracy")
"""Shown beside the reward's dimensions until somebody chooses."""
SOFT, ACCENT, BAD = "#8a8f98", "#4b8fd6", "#d0634f"
"""Colours that can be read on light and dark ground."""
_POOLS = ("#4b8fd6", "#57a773", "#c58b3b", "#9b7bd0", "#4aa9a5", "#b0698f")


def first_choice(names: list[str]) -> list[str]:
    """Return the metrics that are drawn at first, the reward before all others."""
    rewards = [name for name in names if name.startswith("reward/")]
    chosen = dict.fromkeys([*rewards, *FIRST_CHOICE])
    shown = [name for name in chosen if name in names] or names[:6]
    return sorted(shown, key=lambda name: name != "reward/total")


class Curves:
    """A choice of metrics, and a chart of each; made where it is called."""

    def __init__(self, run: RunContents) -> None:
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
        self._charts: dict[str, ui.echart] = {}
        self._draw()

    def update(self, run: RunContents) -> None:
        """Show what a run has written meanwhile."""
        was_empty = not self._choice.options
        self._run = run
        names = run.metrics()
        if names != self._choice.options:
            self._choice.set_options(names, value=first_choice(names) if was_empty else None)
        for name, chart in self._charts.items():
            chart.options.update(_options(name, run))
            chart.update()

    def _draw(self) -> None:
        self._grid.clear()
        with self._grid:
            self._charts = {
                name: ui.echart(_options(name, self._run)).classes("chart card")
                for name in self._choice.value
            }
            if not self._charts:
                ui.label("No metric yet: a run writes the first ones when its first step ends.")


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
                "data": smooth(series),
                "lineStyle": {"width": 2.2},
                "color": ACCENT,
            },
        ],
    }


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
    pools = [
        {
            "type": "line",
            "step": "end",
            "showSymbol": False,
            "name": name,
            "data": series,
            "color": _POOLS[place % len(_POOLS)],
            # Starting and queued are 0 most of the time: the ready workers stand out.
            "lineStyle": {"width": 2.2 if name.endswith("workers") else 1},
        }
        for place, (name, series) in enumerate(found.pools.items())
    ]
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
        options["legend"] = {"type": "scroll", "left": 130, "top": 0, "textStyle": {"color": SOFT}}
        options["xAxis"] |= reach
        options["yAxis"] |= {"minInterval": 1, "min": 0}
        holder = {"type": "line", "name": "reference swapped", "data": [], "color": SOFT}
        options["series"] = [*series, {**holder, "markLine": mark}]
        ui.echart(options).classes("timeline card")
    swaps = ", ".join(map(str, found.swaps)) or "none yet"
    ui.label(f"The reference became the policy after steps: {swaps} (dotted lines).").classes(
        "soft small"
    )

"""The page of one run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

from nicegui import ui

from videorl.errors import RunFolderError
from videorl.pages.frame import address, first_paint, layout
from videorl.pages.watch.cards import alert_cards, strip_rows, video
from videorl.pages.watch.curves import Curves, draw_timeline
from videorl.pages.watch.gallery import Gallery
from videorl.pages.watch.watched import WatchedRun
from videorl.report.charts import fixed, signed
from videorl.report.contents import RunContents
from videorl.report.verdicts import evaluation_table
from videorl.report.video_cells import clipped
from videorl.run.progress import duration
from videorl.watch.alerts import Alert, alerts
from videorl.watch.fixed_prompts import read_strips
from videorl.watch.run_state import RunState

LOOK_S = 2.0
"""How often a page looks whether the run wrote more."""
MOST_FRAMES = 10
"""Steps that a film strip shows at most."""
MOST_DAMAGED = 5
"""Damaged files that are named."""
TABS = ("curves", "gallery", "fixed prompts", "before and after", "time line", "settings")


async def show_run(watched: WatchedRun, tab: str, back: str = "") -> None:
    """Build the page of a run.

    Args:
        watched: The run.
        tab: The one that is open first, of `TABS`; another name = the first.
        back: Path of the page of all runs, if there is one.
    """
    try:
        state, settings = await asyncio.to_thread(_read, watched)
    except RunFolderError as error:
        with layout(watched.name, back=back):
            ui.label(str(error)).classes("note")
        return
    with layout(watched.name, back=back):
        page = RunPage(watched, state, settings, tab if tab in TABS else TABS[0])
        await page.open()
    first_paint(watched.name, page.html())


def _read(watched: WatchedRun) -> tuple[RunState, dict[str, Any]]:
    state = watched.reader.read()
    watched.refresh()
    return state, watched.settings()


class RunPage:
    """What one browser sees of one run; made where it is called.

    Of the tabs only the one that is open is made, and kept up to date.
    """

    def __init__(
        self, watched: WatchedRun, state: RunState, settings: Mapping[str, Any], tab: str
    ) -> None:
        self._watched, self._state, self._settings = watched, state, settings
        self._facts = ui.html("", sanitize=False)
        self._alerts = ui.html("", sanitize=False).classes("alerts")
        self._curves: Curves | None = None
        self._gallery: Gallery | None = None
        self._shown: RunContents | None = None
        self._is_first = True
        # A name will do, as its docstring says.
        self._tabs = ui.tabs(value=tab, on_change=self._switch)  # pyright: ignore[reportArgumentType]
        self._tabs.props(
            "align=left dense no-caps inline-label outside-arrows mobile-arrows"
        ).classes("run-tabs")
        with self._tabs:
            for name in TABS:
                ui.tab(name)
        self._panels: dict[str, ui.column] = {}
        with ui.tab_panels(self._tabs, value=tab, animated=False):
            for name in TABS:
                with ui.tab_panel(name):
                    self._panels[name] = ui.column().classes("full-width")
        self._draw: dict[str, Callable[[], None]] = {
            "fixed prompts": self._draw_strips,
            "before and after": self._draw_ends,
            "time line": lambda: draw_timeline(self._state.contents),
            "settings": self._draw_settings,
        }

    async def open(self) -> None:
        """Fill the page, and keep it up to date while it is open."""
        self._show_heading()
        await self._switch()
        ui.timer(0.01, self._come_alive, once=True)
        ui.timer(LOOK_S, self._look, immediate=False)

    def html(self) -> str:
        """Return what a browser may show before it has any script: all but the controls."""
        made = self._curves or self._gallery
        links = "".join(f'<a href="?tab={quote(name)}">{name}</a>' for name in TABS)
        return (
            f'{self._facts.content}<div class="alerts">{self._alerts.content}</div>'
            f'<nav class="plain-tabs">{links}</nav>'
            f'<div class="groups">{made.html if made else ""}</div>'
        )

    def _come_alive(self) -> None:
        self._is_first = False
        if self._curves:
            self._curves.come_alive()

    async def _look(self) -> None:
        try:
            state = await asyncio.to_thread(self._watched.reader.read)
            await asyncio.to_thread(self._watched.refresh)
        except (RunFolderError, OSError) as error:
            self._alerts.content = alert_cards([Alert("The run cannot be read now", str(error))])
            return
        if self._facts.is_deleted:
            return
        self._state = state
        self._show_heading()
        name = str(self._tabs.value)
        if name == "gallery" and self._gallery:
            await self._gallery.look()
        elif name in ("curves", "time line") and state.contents is not self._shown:
            await self._switch()

    async def _switch(self) -> None:
        """Make the tab that is open, or bring it up to date."""
        name, self._shown = str(self._tabs.value), self._state.contents
        if not self._is_first:
            # A browser that was asleep loads the page again.
            ui.run_javascript(f"history.replaceState(null, '', '?tab={quote(name)}')")
        panel = self._panels[name]
        with panel:
            if name == "curves":
                if self._curves is None:
                    self._curves = Curves(self._state.contents, is_first=self._is_first)
                self._curves.update(self._state.contents)
            elif name == "gallery":
                if self._gallery is None:
                    self._gallery = Gallery(self._watched, self._settings)
                if self._gallery.is_old:
                    await self._gallery.show()
            elif draw := self._draw.get(name):
                panel.clear()
                draw()

    def _show_heading(self) -> None:
        state, contents = self._state, self._state.contents
        rewards = [value for _, value in contents.series("reward/total") if value is not None]
        facts = [("step", f"{state.num_done} of {contents.num_steps or '?'}")]
        if rewards:
            change = f" ({signed(rewards[-1] - rewards[0])})"
            facts.append(("reward", fixed(rewards[-1]) + change))
        if state.updated:
            facts.append(("last step", f"{duration(max(0.0, time.time() - state.updated))} ago"))
        listed = " ".join(f"<span>{name} <b>{escape(text)}</b></span>" for name, text in facts)
        self._facts.content = (
            f'<div class="row facts-row"><span class="state {state.state}">{state.state}</span>'
            f'<span class="row facts-row soft">{listed}</span></div>'
        )
        problems = sorted(self._watched.index.problems.items())
        damaged = [
            Alert("A damaged file", f"{file}: {why}. Only its rows are missing here.")
            for file, why in problems[:MOST_DAMAGED]
        ]
        if more := len(problems) - len(damaged):
            damaged.append(Alert(f"{more} more damaged files", "Their rows are missing too."))
        self._alerts.content = alert_cards([*alerts(state), *damaged])

    def _draw_strips(self) -> None:
        strips, count, problems = read_strips(self._watched.root, MOST_FRAMES)
        for problem in problems:
            ui.label(problem).classes("note")
        if not strips:
            ui.label(
                "This run keeps no videos of fixed prompts: it is of an older version, or its "
                "recipe asks for none."
            ).classes("soft")
            return
        shown = len(strips[0].frames)
        some = f"; {shown} of {count} steps are shown" if shown < count else ""
        ui.label(f"The same held-out prompts and seeds during training{some}.").classes("soft")
        ui.html(strip_rows(strips, address(self._watched.files)), sanitize=False).classes(
            "full-width"
        )

    def _draw_ends(self) -> None:
        contents = self._state.contents
        if not contents.videos:
            ui.label(
                "There is nothing to compare yet: held-out prompts are sampled again when the run "
                "ends, if its recipe has an evaluation."
            ).classes("soft")
            return
        ui.html(_scores(contents), sanitize=False).classes("full-width")
        ui.html(_pairs(contents, self._watched), sanitize=False).classes("pairs")

    def _draw_settings(self) -> None:
        ui.label(f"The resolved recipe of {self._watched.root}:").classes("soft")
        text = escape(self._state.contents.config)
        ui.html(f'<pre class="settings card">{text}</pre>', sanitize=False).classes("full-width")


def _scores(contents: RunContents) -> str:
    evaluation = contents.summary.get("evaluation")
    if not evaluation:
        return ""
    try:
        return (
            f'<p class="soft">Means over {int(evaluation["num_prompts"])} held-out prompts; more '
            f'is in report.html.</p><div class="card scores">{evaluation_table(evaluation)}</div>'
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        return '<p class="note">summary.json holds an evaluation of another version.</p>'


def _pairs(contents: RunContents, watched: WatchedRun) -> str:
    files = address(watched.files)

    def side(name: str, path: str | None, score: float | None) -> str:
        shown = video(files, path) if path else '<div class="missing">missing</div>'
        return f'<div>{shown}<div class="soft small">{name} {fixed(score)}</div></div>'

    cards = []
    for pair in contents.videos:
        before, after = (
            str(path.relative_to(watched.root.resolve())) if path else None
            for path in (pair.before, pair.after)
        )
        cards.append(
            f'<div class="pair group card"><p>{escape(clipped(pair.prompt))}</p><div class="sides">'
            f"{side('before', before, pair.before_score)}{side('after', after, pair.after_score)}"
            "</div></div>"
        )
    return "".join(cards)

"""The gallery: filters, and a page of groups whose candidates play in step."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nicegui import ui

from videorl.pages.frame import address
from videorl.pages.watch.cards import group_card
from videorl.pages.watch.watched import WatchedRun
from videorl.watch.filters import ORDERS, Filter
from videorl.watch.groups import GroupView, read_groups
from videorl.watch.models import model_of, reward_names

PAGE_SIZE = 6
"""Groups per page: few enough that a browser plays all that are in sight."""
ALL = "all"


@dataclass(frozen=True)
class _Found:
    """What the index and the archive hold of a page."""

    version: int
    count: int
    page: int
    groups: list[GroupView]
    reasons: list[str]
    dimensions: list[tuple[str, str]]


class Gallery:
    """Filters and groups of one run for one browser; made where it is called.

    Args:
        watched: The run.
        settings: Its resolved recipe.
    """

    def __init__(self, watched: WatchedRun, settings: Mapping[str, Any]) -> None:
        self._watched = watched
        selection = settings.get("selection")
        self._selection: dict[str, Any] = selection if isinstance(selection, dict) else {}
        self._rewards = reward_names(settings)
        self._files = address(watched.files)
        self._dimensions: list[tuple[str, str]] = []
        self._page = 0
        self._count = 0
        self._num_pages = 1
        self._shown: int | None = None
        """Version of the index that is on the screen,"""
        self._looked: int | None = None
        """and the one that was looked at."""
        self._asked = 0
        with ui.element("div").classes("filters card"):
            self._make_filters()
        with ui.row().classes("items-center pages"):
            self._make_paging()
        self._cards = ui.html("", sanitize=False).classes("groups")

    def _make_filters(self) -> None:
        def field(element: Any) -> Any:
            return element.props("dense outlined clearable").classes("filter")

        later: dict[str, Any] = {"on_change": self._changed}
        self._text = field(ui.input("prompt contains", **later))
        self._text.props("debounce=250")
        self._first = field(ui.number("from step", min=0, format="%d", **later))
        self._last = field(ui.number("to step", min=0, format="%d", **later))
        self._least = field(ui.number("margin from", **later))
        self._most = field(ui.number("margin to", **later))
        self._reason = field(ui.select([], label="outcome", **later))
        self._model = ui.select([ALL], value=ALL, label="model", on_change=self._model_changed)
        self._model.props("dense outlined").classes("filter")
        self._at_least = field(ui.number("score at least", **later))
        self._at_most = field(ui.number("score at most", **later))
        self._dimension = field(ui.select({}, label="dimension", **later))
        self._order = ui.select(list(ORDERS), value="newest", label="order", **later)
        self._order.props("dense outlined").classes("filter")
        for number in (self._first, self._last, self._least, self._most):
            number.props("debounce=250")
        for number in (self._at_least, self._at_most):
            number.props("debounce=250").tooltip("of the dimension; without one, of the total")

    def _make_paging(self) -> None:
        previous = ui.button(icon="chevron_left", on_click=lambda: self._turn(-1))
        previous.props('flat dense aria-label="previous page"').classes("previous-page")
        self._where = ui.label().classes("numbers")
        following = ui.button(icon="chevron_right", on_click=lambda: self._turn(1))
        following.props('flat dense aria-label="next page"').classes("next-page")
        pause = ui.button(icon="pause").props('flat dense aria-label="pause or play"')
        pause.on("click", js_handler="() => videorlWatch.toggle()").tooltip("space")
        self._news = ui.button("show new steps", on_click=self.show).props("flat dense")
        self._news.visible = False
        self._reading = ui.label().classes("soft small")
        ui.space()
        ui.label("← → page · space pause · / search · 1–6 tabs").classes("soft small")

    def filter(self) -> Filter:
        """Return what the controls ask for."""

        def whole(value: float | None) -> int | None:
            # No run has so many steps, and DuckDB has no such numbers.
            return None if value is None else int(min(max(value, -1.0), 1e18))

        kind, _, dimension = (self._dimension.value or "").partition("/")
        return Filter(
            first_step=whole(self._first.value),
            last_step=whole(self._last.value),
            text=self._text.value or "",
            least_margin=self._least.value,
            most_margin=self._most.value,
            reason=self._reason.value or "",
            kind=kind,
            dimension=dimension,
            at_least=self._at_least.value,
            at_most=self._at_most.value,
            order=self._order.value,
        )

    @property
    def html(self) -> str:
        """The groups that are shown."""
        return self._cards.content

    @property
    def is_old(self) -> bool:
        """Whether groups came or went since they were shown."""
        return self._shown != self._watched.index.version

    async def show(self) -> None:
        """Show the current page of what matches."""
        self._asked += 1
        asked, wanted = self._asked, self.filter()
        found = await asyncio.to_thread(self._find, wanted, self._page)
        # Meanwhile the person may have typed on, or left.
        if asked != self._asked or self._cards.is_deleted:
            return
        self._page = found.page
        self._dimensions = found.dimensions
        self._show_choices(found.reasons)
        shown = self._of_model()
        self._cards.content = "".join(
            group_card(group, self._files, self._selection, shown) for group in found.groups
        ) or _nothing(self._watched)
        self._show_count(found.count)
        self._shown = self._looked = found.version
        self._news.visible = False

    async def look(self) -> None:
        """See whether the run wrote more; what is on the screen stays until it is asked for."""
        left = self._watched.num_left
        self._reading.text = (
            f"reading the archive, {left} steps to go; what follows is of those that were read"
            if left
            else ""
        )
        version = self._watched.index.version
        if version == self._looked:
            return
        self._looked = version
        if not self._count:
            await self.show()
            return
        count, reasons, self._dimensions = await asyncio.to_thread(self._known, self.filter())
        if not self._cards.is_deleted:
            self._show_choices(reasons)
            self._show_count(count)
            self._news.visible = self.is_old

    def _show_count(self, count: int) -> None:
        self._count = count
        self._num_pages = _num_pages(count)
        self._where.text = f"page {self._page + 1} of {self._num_pages} · {count} groups"

    def _known(self, wanted: Filter) -> tuple[int, list[str], list[tuple[str, str]]]:
        index = self._watched.index
        return index.count(wanted), index.reasons(), index.dimensions()

    def _find(self, wanted: Filter, page: int) -> _Found:
        index = self._watched.index
        version = index.version
        count, reasons, dimensions = self._known(wanted)
        page = min(page, _num_pages(count) - 1)
        keys = index.page(wanted, page, PAGE_SIZE)
        groups = read_groups(self._watched.archive, index, keys)
        return _Found(version, count, page, groups, reasons, dimensions)

    async def _turn(self, by: int) -> None:
        if 0 <= self._page + by < self._num_pages:
            self._page += by
            await self.show()

    async def _changed(self) -> None:
        self._page = 0
        await self.show()

    async def _model_changed(self) -> None:
        self._set(self._dimension, self._dimension_names())
        await self._changed()

    def _show_choices(self, reasons: list[str]) -> None:
        self._set(self._reason, reasons)
        models = dict.fromkeys(model_of(*row, self._rewards) for row in self._dimensions)
        self._set(self._model, [ALL, *models])
        self._set(self._dimension, self._dimension_names())

    def _of_model(self) -> list[tuple[str, str]]:
        """Return (kind, dimension) of what the chosen model scores, rewards first."""
        chosen = self._model.value
        return [row for row in self._dimensions if chosen in (ALL, model_of(*row, self._rewards))]

    def _dimension_names(self) -> dict[str, str]:
        """Return what is chosen from: an unseen metric may be named like a reward's dimension."""
        return {
            f"{kind}/{name}": f"{name} (unseen)" if kind == "unseen" else name
            for kind, name in self._of_model()
        }

    @staticmethod
    def _set(choice: ui.select, options: list[str] | dict[str, str]) -> None:
        if choice.options != options:
            kept = choice.value if choice.value in options else None
            choice.set_options(options, value=kept or (ALL if ALL in options else None))


def _num_pages(count: int) -> int:
    return max(1, -(-count // PAGE_SIZE))


def _nothing(watched: WatchedRun) -> str:
    if watched.index.num_steps():
        return '<p class="soft">No group matches: clear a filter.</p>'
    return (
        '<p class="soft">No step is in the archive yet. A run writes its first groups when its '
        "first step ends; runs that sample nothing in pools (offline DPO, ReFL) have none.</p>"
    )

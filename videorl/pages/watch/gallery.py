"""The gallery: filters, and a page of groups whose candidates play in step."""

from __future__ import annotations

import asyncio
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


class Gallery:
    """Filters and groups of one run for one browser; made where it is called."""

    def __init__(self, watched: WatchedRun) -> None:
        self._watched = watched
        settings = watched.settings()
        selection = settings.get("selection")
        self._selection: dict[str, Any] = selection if isinstance(selection, dict) else {}
        self._rewards = reward_names(settings)
        self._files = address(watched.files)
        self._page = 0
        self._count = 0
        self._num_pages = 1
        self._shown_steps = -1
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
        self._dimension = field(ui.select([], label="dimension", **later))
        self._at_least = field(ui.number("one has at least", **later))
        self._at_most = field(ui.number("one has at most", **later))
        self._order = ui.select(list(ORDERS), value="newest", label="order", **later)
        self._order.props("dense outlined").classes("filter")
        for number in (self._first, self._last, self._least, self._most):
            number.props("debounce=250")
        for number in (self._at_least, self._at_most):
            number.props("debounce=250")

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

        return Filter(
            whole(self._first.value),
            whole(self._last.value),
            self._text.value or "",
            self._least.value,
            self._most.value,
            self._reason.value or "",
            self._dimension.value or "",
            self._at_least.value,
            self._at_most.value,
            self._order.value,
        )

    async def show(self) -> None:
        """Show the current page of what matches."""
        wanted = self.filter()
        self._count, groups = await asyncio.to_thread(self._find, wanted)
        self._num_pages = max(1, -(-self._count // PAGE_SIZE))
        if self._page >= self._num_pages:
            self._page = self._num_pages - 1
            self._count, groups = await asyncio.to_thread(self._find, wanted)
        self._show_choices()
        dimensions = self._dimensions()
        self._cards.content = "".join(
            group_card(group, self._files, self._selection, dimensions) for group in groups
        ) or _nothing(self._watched)
        self._where.text = f"page {self._page + 1} of {self._num_pages} · {self._count} groups"
        self._shown_steps = self._watched.index.num_steps()
        self._news.visible = False

    async def look(self, *, is_open: bool) -> None:
        """See whether the run wrote more; what is on the screen stays until it is asked for.

        Args:
            is_open: Whether somebody sees the gallery.
        """
        index, left = self._watched.index, self._watched.num_left
        self._reading.text = (
            f"reading the archive, {left} steps to go; what follows is of those that were read"
            if left
            else ""
        )
        if index.num_steps() != self._shown_steps:
            if self._shown_steps < 1 or not is_open:
                await self.show()
            else:
                self._count = await asyncio.to_thread(index.count, self.filter())
                self._num_pages = max(1, -(-self._count // PAGE_SIZE))
                self._where.text = (
                    f"page {self._page + 1} of {self._num_pages} · {self._count} groups"
                )
                self._show_choices()
                self._news.visible = True

    def _find(self, wanted: Filter) -> tuple[int, list[GroupView]]:
        index = self._watched.index
        keys = index.page(wanted, self._page, PAGE_SIZE)
        return index.count(wanted), read_groups(self._watched.archive, index, keys)

    async def _turn(self, by: int) -> None:
        if 0 <= self._page + by < self._num_pages:
            self._page += by
            await self.show()

    async def _changed(self) -> None:
        self._page = 0
        await self.show()

    async def _model_changed(self) -> None:
        names = [name for _, name in self._dimensions()]
        kept = self._dimension.value if self._dimension.value in names else None
        self._dimension.set_options(names, value=kept)
        await self._changed()

    def _show_choices(self) -> None:
        index = self._watched.index
        self._set(self._reason, index.reasons())
        models = dict.fromkeys(model_of(*row, self._rewards) for row in index.dimensions())
        self._set(self._model, [ALL, *models])
        self._set(self._dimension, [name for _, name in self._dimensions()])

    def _dimensions(self) -> list[tuple[str, str]]:
        """Return (kind, dimension) of what the chosen model scores, rewards first."""
        return [
            row
            for row in self._watched.index.dimensions()
            if self._model.value in (ALL, model_of(*row, self._rewards))
        ]

    @staticmethod
    def _set(choice: ui.select, options: list[str]) -> None:
        if choice.options != options:
            kept = choice.value if choice.value in options else None
            choice.set_options(options, value=kept or (ALL if ALL in options else None))


def _nothing(watched: WatchedRun) -> str:
    if watched.index.num_steps():
        return '<p class="soft">No group matches: clear a filter.</p>'
    return (
        '<p class="soft">No step is in the archive yet. A run writes its first groups when its '
        "first step ends; runs that sample nothing in pools (offline DPO, ReFL) have none.</p>"
    )

"""Where the workers of a pool go: into places kept for the least of them, or where there is room.

A place that is kept is a placement group of its own, on one node: Ray gives it to nobody else while
its worker is replaced, and moves it as a whole when its node is lost.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

_LATE_S = 2.0
"""So much later Ray's sums of what is free may tell that a worker has a place."""


class Seats:
    """The places of one pool.

    Args:
        kept: A group for each of the least workers; none = every worker goes where there is room.
    """

    def __init__(self, kept: Sequence[PlacementGroup] = ()) -> None:
        self._kept = {group.id.hex(): group for group in kept}
        self._lock = threading.Lock()
        self._sitting: dict[int, str] = {}
        """Number of a worker -> its kept place."""
        self._leaving: frozenset[str] = frozenset()
        """Kept places on nodes that will leave soon."""
        self._unseen: dict[int, float] = {}
        """Number of a worker elsewhere -> monotonic time until which `_room` may not know of it."""
        self._room: float = math.inf
        self._is_pressed = False
        self._tell: Callable[[], None] = _nobody

    def num_free(self) -> float:
        """Return how many workers may be started now: those beyond would only wait in Ray."""
        with self._lock:
            return self._num_free()

    def num_kept_free(self) -> int:
        """Return how many kept places nobody sits on."""
        with self._lock:
            return len(self._free())

    @property
    def is_pressed(self) -> bool:
        """Whether places that are needed more are wanting: idle workers without a kept place go."""
        return self._is_pressed

    def take(self, number: int) -> bool:
        """Give a worker a place, a kept one if there is any; return whether it is kept."""
        with self._lock:
            if free := self._free():
                self._sitting[number] = free[0]
                return True
            self._unseen[number] = math.inf
            return False

    def has_come(self, number: int) -> None:
        """Note that a worker has its place, of which Ray's sums tell a little later."""
        with self._lock:
            if number in self._unseen:
                self._unseen[number] = time.monotonic() + _LATE_S

    def options(self, number: int) -> dict[str, Any]:
        """Return the Ray options that put a worker, which took a place, there."""
        with self._lock:
            group = self._kept.get(self._sitting.get(number, ""))
        if group is None:
            return {}
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, 0)}

    def give_back(self, number: int) -> None:
        """Note that a worker is gone."""
        with self._lock:
            self._sitting.pop(number, None)
            self._unseen.pop(number, None)

    def keep(self, count: int) -> None:
        """Keep no more than `count` places: others may have the rest as its workers leave."""
        if len(self._kept) <= count:
            return
        with self._lock:
            spare = [name for name in self._kept if name not in self._sitting.values()]
            spare = spare[: len(self._kept) - count]
            groups = [self._kept.pop(name) for name in spare]
        for group in groups:
            remove_placement_group(group)

    def close(self) -> None:
        """Keep nothing any more."""
        with self._lock:
            groups, self._kept = list(self._kept.values()), {}
        for group in groups:
            remove_placement_group(group)

    def watched_by(self, tell: Callable[[], None]) -> None:
        """Have `tell` called, on any thread, when there is more room, or others want it."""
        self._tell = tell

    def are(self, nodes: Mapping[str, str], leaving: Collection[str], room: float) -> None:
        """Learn how the places are.

        Args:
            nodes: Id of a placement group that has its place -> id of its node.
            leaving: Ids of nodes that will leave soon.
            room: So many more workers find a place outside of those that are kept; negative =
                none, and others need it more.
        """
        with self._lock:
            before = self._num_free(), self._is_pressed
            self._leaving = frozenset(n for n in self._kept if nodes.get(n) in leaving)
            self._room, self._is_pressed = max(0.0, room), room < 0
            after = self._num_free(), self._is_pressed
        if after[0] > before[0] or after[1] != before[1]:
            self._tell()

    @property
    def kept(self) -> Collection[str]:
        """Ids of the placement groups that are kept."""
        with self._lock:
            return tuple(self._kept)

    def _num_free(self) -> float:
        now = time.monotonic()
        unseen = sum(until > now for until in self._unseen.values())
        return len(self._free()) + max(0.0, self._room - unseen)

    def _free(self) -> list[str]:
        taken = {*self._sitting.values(), *self._leaving}
        return [name for name in self._kept if name not in taken]


def _nobody() -> None:
    """Be nobody who is told."""

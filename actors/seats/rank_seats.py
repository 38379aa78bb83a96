"""The places of a learner that follows the size of the cluster: one for each rank."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from actors.seats.holders import group_name

logger = logging.getLogger(__name__)

_MOST_LOOKS, _REST_LOOKS = 10, 60
"""So often it is looked whether a place beyond the least has come, before it is given up; and then
so often nothing is asked for: shares of GPUs may be free that make no whole one."""
_NEVER_PLACED = ("PENDING", "PREPARED")
"""States of a group, by Ray's names."""


@dataclass
class RankSeats:
    """Keeps at least `least` places, and takes more while there is room.

    A place is a placement group of its own: what one loses with a node does not move the others,
    and those that are there stay taken while the ranks start anew, however many they are.

    Args:
        name: Begins the names of its groups, by which Ray Train's controller finds them; nobody
            else's begin so.
        bundle: What a rank takes.
        groups: Those that there are.
        least: The fewest ranks.
        most: The most.
        can_grow: Whether an autoscaler may add nodes: then it waits for the most.
    """

    name: str
    bundle: Mapping[str, float]
    groups: Sequence[PlacementGroup]
    least: int
    most: int
    can_grow: bool
    _kept: dict[str, PlacementGroup] = field(init=False)
    _looks: dict[str, int] = field(default_factory=dict[str, int])
    """Id of a group that has no place -> how often it was seen so."""
    _rest: int = 0
    """So many looks more it asks for nothing."""

    def __post_init__(self) -> None:
        """Keep the groups by their ids."""
        self._kept = {group.id.hex(): group for group in self.groups}

    @property
    def needed(self) -> Collection[str]:
        """Ids of the groups that the run cannot do without, as they are too few with a place."""
        return [*self._kept] if len(self._kept) - len(self._looks) < self.least else []

    @property
    def is_waiting(self) -> bool:
        """Whether a place beyond the least, for which there is room, is about to come."""
        return bool(self._looks) and not self.needed and not self.can_grow

    def look(self, table: Mapping[str, Mapping[str, Any]], room: float, *, may_grow: bool) -> None:
        """Give up places that were lost or did not come, and ask for more where there is room.

        Args:
            table: Ray's table of placement groups, by their ids.
            room: So many more ranks find a place now.
            may_grow: Nobody needs that room more. Otherwise it waits for none of it either, which
                would be served before theirs.
        """
        states = {name: str(table.get(name, {}).get("state", "REMOVED")) for name in self._kept}
        self._rest = max(0, self._rest - 1)
        most_looks = 0 if not may_grow else math.inf if self.can_grow else _MOST_LOOKS
        for name in to_give_up(states, self._looks, self.least, most_looks):
            remove_placement_group(self._kept.pop(name))
            if states.pop(name) in _NEVER_PLACED and may_grow:
                self._rest = _REST_LOOKS
        lacking = [name for name, state in states.items() if state != "CREATED"]
        self._looks = {name: self._looks.get(name, 0) + 1 for name in lacking}
        wanted = self.most - len(self._kept)
        more = wanted if self.can_grow else min(wanted, int(room) - len(lacking))
        for _ in range(more if may_grow and not self._rest else 0):
            group = placement_group([dict(self.bundle)], "PACK", name=group_name(self.name))
            self._kept[group.id.hex()] = group
            self._looks[group.id.hex()] = 0

    def close(self) -> None:
        """Give all places back."""
        for group in self._kept.values():
            remove_placement_group(group)
        self._kept = {}


def to_give_up(
    states: Mapping[str, str], looks: Mapping[str, int], least: int, most_looks: float
) -> list[str]:
    """Return the groups that there is no use in waiting for, as others are enough.

    Args:
        states: Id of a group -> its state, by Ray's names.
        looks: Id of a group that had no place -> how often it was seen so.
        least: So many must have a place, or wait for theirs.
        most_looks: So often those that never had a place may be seen so; infinite = as long as it
            takes.
    """
    if sum(state == "CREATED" for state in states.values()) < least:
        return []
    return [
        name
        for name, state in states.items()
        if state in ("RESCHEDULING", "REMOVED")
        or (state in _NEVER_PLACED and looks.get(name, 0) >= most_looks)
    ]

"""A run takes places for all that it needs at once, or waits and holds none of them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import Any

import ray
import ray._private.state
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from actors.naming import run_name
from actors.placement import Placement, Role
from actors.seats.holders import ALL, group_name, kept_by
from actors.seats.rank_seats import RankSeats
from actors.seats.room import could_have, num_that_fit
from actors.seats.seats import Seats
from actors.seats.turn import check_going, turn
from videorl.config import Recipe
from videorl.errors import ResourceError
from videorl.run.background import repeating

logger = logging.getLogger(__name__)

_LOOK_S, _FIRST_S, _REPORT_S, _SETTLE_S = 1.0, 3.0, 30.0, 30.0
"""Who waits says so after `_FIRST_S`, and then every `_REPORT_S`."""


class Booking:
    """The places of a run.

    Args:
        placement: What it needs.
        groups: Name of a role -> the group of each of its workers; the learner has one for all
            ranks.
        ranks: The places of a learner that follows the cluster's size, instead.
        can_grow: Whether an autoscaler may add nodes: then nobody knows how much room there is.
    """

    def __init__(
        self,
        placement: Placement,
        groups: Mapping[str, list[PlacementGroup]],
        ranks: RankSeats | None = None,
        *,
        can_grow: bool,
    ) -> None:
        self._can_grow = can_grow
        self.learner = None if ranks else next(iter(groups.get(placement.learner.name, [])), None)
        """Of all ranks of a learner of fixed size; None = it has none, or takes nothing."""
        self.ranks = ranks
        self._roles = [role for role in placement.roles() if role is not placement.learner]
        self._seats = {role.name: Seats(groups.get(role.name, [])) for role in self._roles}

    def seats(self, role: Role) -> Seats:
        """Return the places of a role's pool."""
        return self._seats.get(role.name) or Seats()

    def look(self) -> None:
        """Tell every pool how its places are, and how much room there is."""
        table: Mapping[str, Any] = placement_group_table()
        leaving = draining_nodes()
        placed = {name: node for name, entry in table.items() if (node := _first_node(entry))}
        kept = [name for seats in self._seats.values() for name in seats.kept]
        kept += [self.learner.id.hex()] if self.learner else []
        kept += self.ranks.needed if self.ranks else []
        lacking = [entry for name in kept if (entry := table.get(name)) and _lacks_place(entry)]
        lacking += filter(_waits_for_all, table.values())
        is_short = _can_be_helped(lacking, table.values(), ray.cluster_resources())
        free: Mapping[str, Any] = _ray_state("available_resources_per_node")
        staying = [has for node, has in free.items() if node not in leaving]
        if self.ranks:
            self.ranks.look(table, num_that_fit(self.ranks.bundle, staying), may_grow=not is_short)
            if self.ranks.is_waiting:
                staying = []  # what is free now is about to be theirs
        for role in self._roles:
            bundle = role.bundle()
            room = math.inf if self._can_grow else num_that_fit(bundle, staying)
            # Who takes nothing is in nobody's way, and has no kept place to come back to.
            self._seats[role.name].are(placed, leaving, -1.0 if is_short and bundle else room)

    def close(self) -> None:
        """Give all places back."""
        for seats in self._seats.values():
            seats.close()
        if self.learner:
            remove_placement_group(self.learner)
        if self.ranks:
            self.ranks.close()


def book(
    recipe: Recipe,
    placement: Placement,
    places: Callable[[], str],
    should_stop: Callable[[], bool],
) -> AbstractContextManager[Booking]:
    """Keep places for what a run needs, inside the block, as `booked` does."""
    learner = recipe.learner
    return booked(
        placement,
        run_name(recipe),
        places,
        should_stop,
        can_grow=recipe.cluster.can_grow,
        most_ranks=learner.max_workers,
    )


@contextmanager
def booked(
    placement: Placement,
    run: str,
    places: Callable[[], str],
    should_stop: Callable[[], bool] = lambda: False,
    *,
    can_grow: bool,
    most_ranks: int = 0,
) -> Iterator[Booking]:
    """Wait until there is a place for all that a run needs, and keep them inside the block.

    Args:
        placement: What it needs.
        run: Its name.
        places: Says who has what, for those who wait.
        should_stop: Asked while it waits.
        can_grow: Whether an autoscaler may add nodes.
        most_ranks: Up to so many if that is more than the learner needs: it then takes places as
            there is room.

    Raises:
        StoppedError: `should_stop` said so.
    """

    def held() -> str:
        table: Mapping[str, Any] = placement_group_table()
        return places() + kept_by(table.values())

    wait = partial(_wait, places=held, should_stop=should_stop)
    learner = placement.learner
    is_elastic = most_ranks > learner.num_workers > 0
    learner_name = group_name(f"{run}/learner")
    with turn(should_stop):
        while (
            groups := _taken(placement, run, wait, learner_name if is_elastic else None)
        ) is None:
            logger.warning(
                "the places of this run went to others meanwhile; waiting again: %s", held()
            )
    ranks = None
    if is_elastic and (own := groups.get(learner.name)):
        least = learner.num_workers
        ranks = RankSeats(learner_name, learner.bundle(), own, least, most_ranks, can_grow)
    booking = Booking(placement, groups, ranks, can_grow=can_grow)
    try:
        booking.look()
        with repeating(booking.look, _LOOK_S, "places"):
            yield booking
    finally:
        # The cluster may be gone, which ends the run for a better reason.
        with suppress(Exception):
            booking.close()


def draining_nodes() -> frozenset[str]:
    """Return the ids of nodes that will end soon (`ray drain-node`, notices of spot instances)."""
    # Not public yet; Ray Train's own preemption watcher reads the same list.
    return frozenset(_ray_state("get_draining_nodes"))


def _ray_state(name: str) -> Any:
    """Ask what Ray knows of its nodes, by a method that is not public yet.

    Raises:
        ResourceError: This version of Ray has no such method.
    """
    try:
        ask = getattr(ray._private.state.state, name)
    except AttributeError as error:
        raise ResourceError(
            f"Ray {ray.__version__} has no {name}, by which a run learns which nodes will leave "
            "and how much room there is; install the version of constraints.txt"
        ) from error
    return ask()


def _taken(
    placement: Placement, run: str, wait: Callable[..., bool], ranks_name: str | None
) -> dict[str, list[PlacementGroup]] | None:
    """Take a place for each worker where all of them found room at once.

    A group of all places is atomic: while it waits it holds nothing, and an autoscaler sees what
    is wanted. But Ray would move all that it lost with a node, or nothing of it, so that there is a
    group for each worker in the end.
    """
    bundles = [
        (role, role.bundle())
        for role in placement.roles()
        for _ in range(role.num_workers)
        if role.bundle()
    ]
    if not bundles:
        return {}
    everything = placement_group(
        [each for _, each in bundles], "PACK", name=group_name(f"{ALL}{run}")
    )
    try:
        wait(everything)
        nodes = _nodes_of(everything)
    finally:
        remove_placement_group(everything)
    groups = _apart(placement, run, bundles, nodes, ranks_name)
    every = [group for found in groups.values() for group in found]
    are_kept = False
    try:
        end = time.monotonic() + _SETTLE_S
        are_kept = all(wait(group, until=end) for group in every)
    finally:
        for group in () if are_kept else every:
            remove_placement_group(group)
    return groups if are_kept else None


def _wait(
    group: PlacementGroup,
    places: Callable[[], str],
    should_stop: Callable[[], bool],
    until: float = math.inf,
) -> bool:
    """Return whether a group has its places, at the latest at `until` by the monotonic clock."""
    next_word = time.monotonic() + _FIRST_S
    check_going(should_stop)
    while not group.wait(_LOOK_S):
        check_going(should_stop)
        if (now := time.monotonic()) >= until:
            return False
        if now >= next_word:
            next_word = now + _REPORT_S
            logger.warning("waiting for places for all workers at once: %s", places())
    return True


def _apart(
    placement: Placement,
    run: str,
    bundles: Sequence[tuple[Role, Mapping[str, float]]],
    nodes: Sequence[str],
    ranks_name: str | None,
) -> dict[str, list[PlacementGroup]]:
    """Ask for a group for each worker, where it fitted; return role -> its groups.

    Ray serves them in this order. The ranks, which may be on any nodes, come last: before the
    others they might take the only node that is large enough for one of these. Where they may
    become fewer or more, each has a group whose name begins with `ranks_name`.
    """
    groups: dict[str, list[PlacementGroup]] = {}
    for (role, each), node in zip(bundles, nodes, strict=True):
        if role is not placement.learner:
            # On the node where it fitted; but if that is lost, elsewhere.
            own = placement_group(
                [dict(each)],
                "STRICT_PACK",
                group_name(f"{run}/{role.name}"),
                _soft_target_node_id=node,
            )
            groups.setdefault(role.name, []).append(own)
    ranks = [dict(each) for role, each in bundles if role is placement.learner]
    if ranks and ranks_name is None:
        of_all = placement_group(ranks, "PACK", name=group_name(f"{run}/learner"))
        groups[placement.learner.name] = [of_all]
    elif ranks and ranks_name is not None:
        groups[placement.learner.name] = [
            placement_group([each], "PACK", name=group_name(ranks_name)) for each in ranks
        ]
    return groups


def _nodes_of(group: PlacementGroup) -> list[str]:
    table: Any = placement_group_table(group)
    nodes = table["bundles_to_node_id"]
    return [nodes[index] for index in sorted(nodes)]


def _first_node(entry: Mapping[str, Any]) -> str:
    nodes = entry["bundles_to_node_id"]
    return next(iter(nodes.values()), "") if entry["state"] == "CREATED" else ""


def _lacks_place(entry: Mapping[str, Any]) -> bool:
    return entry["state"] not in ("CREATED", "REMOVED")


def _waits_for_all(entry: Mapping[str, Any]) -> bool:
    """Tell whether another run waits for all its places by this group."""
    return entry["state"] == "PENDING" and entry["name"].startswith(ALL)


def _can_be_helped(
    lacking: Iterable[Mapping[str, Any]],
    table: Collection[Mapping[str, Any]],
    total: Mapping[str, float],
) -> bool:
    """Tell whether any of the groups that lack places would have them if all else made room."""
    kept = [
        bundle
        for entry in table
        if entry["state"] == "CREATED"
        for bundle in entry["bundles"].values()
    ]
    return any(could_have(entry["bundles"].values(), kept, total) for entry in lacking)

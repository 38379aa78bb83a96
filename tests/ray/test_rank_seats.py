"""A learner that follows the cluster's size keeps the places that it has, however many they are."""

from __future__ import annotations

import math
import os
from contextlib import ExitStack, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from actors.learner.learner import RayLearner
from actors.learner.rank_group import LearnerResources
from actors.learner.seated import groups_with_a_place
from actors.placement import Placement, Role
from actors.seats import rank_seats
from actors.seats.booking import booked
from actors.seats.rank_seats import RankSeats, to_give_up
from actors.store.weights import create_weight_store
from tests.ray.pools import wait_for
from tests.ray.ranks import kill_rank
from tests.ray.test_learner import local_run, run_steps, same_numbers, small_recipe

pytestmark = pytest.mark.ray

NOBODY = Role("nobody", 0, 0.0, 0.0)


def test_places_that_were_lost_or_do_not_come_are_given_up_if_others_are_enough() -> None:
    states = {"a": "CREATED", "b": "RESCHEDULING", "c": "PENDING", "d": "PREPARED"}
    assert to_give_up(states, {"c": 3}, 1, 10) == ["b"]
    assert to_give_up(states, {"c": 10, "d": 9}, 1, 10) == ["b", "c"]
    assert to_give_up(states, {"c": 10}, 1, math.inf) == ["b"], "a node may be on its way"
    assert to_give_up(states, {"c": 10}, 2, 10) == [], "the run needs another"


class Groups:
    """Makes placement groups that get no place until somebody says so."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}

    def make(self, *_: Any, **__: Any) -> Any:
        name = f"{len(self.states)}"
        self.states[name] = "PENDING"
        return SimpleNamespace(id=SimpleNamespace(hex=lambda: name))

    def remove(self, group: Any) -> None:
        self.states[group.id.hex()] = "REMOVED"

    def table(self) -> dict[str, dict[str, str]]:
        return {name: {"state": state} for name, state in self.states.items()}


def test_what_seems_free_and_is_not_keeps_nobody_from_it_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    groups = Groups()
    monkeypatch.setattr(rank_seats, "placement_group", groups.make)
    monkeypatch.setattr(rank_seats, "remove_placement_group", groups.remove)
    seats = RankSeats("ranks", {"GPU": 1.0}, [groups.make()], least=1, most=3, can_grow=False)
    seats.look(groups.table(), 0.0, may_grow=True)
    assert (list(seats.needed), seats.is_waiting) == (["0"], False), "the run needs it"
    groups.states["0"] = "CREATED"
    seats.look(groups.table(), 1.0, may_grow=False)
    assert not seats.is_waiting, "others need the room more"
    waits = list[bool]()
    for _ in range(71):
        seats.look(groups.table(), 1.0, may_grow=True)
        waits.append(seats.is_waiting)
    assert (waits.index(False), sum(waits), len(groups.states)) == (11, 11, 2)
    seats.look(groups.table(), 1.0, may_grow=True)
    groups.states["2"] = "CREATED"
    seats.look(groups.table(), 1.0, may_grow=True)
    assert len(groups.states) == 4, "it asks again, and for the third as the second has come"
    groups.states["2"], groups.states["3"] = "RESCHEDULING", "CREATED"
    seats.look(groups.table(), 0.0, may_grow=True)
    assert groups.states["2"] == "REMOVED", "its node is lost, and the others are enough"


@pytest.mark.parametrize("can_grow", [False, True])
def test_a_place_beyond_the_least_is_not_waited_for_where_others_need_the_room_more(
    can_grow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = Groups()
    monkeypatch.setattr(rank_seats, "placement_group", groups.make)
    monkeypatch.setattr(rank_seats, "remove_placement_group", groups.remove)
    seats = RankSeats("ranks", {"GPU": 1.0}, [groups.make()], least=1, most=2, can_grow=can_grow)
    groups.states["0"] = "CREATED"
    seats.look(groups.table(), 1.0, may_grow=True)
    assert groups.states == {"0": "CREATED", "1": "PENDING"}
    seats.look(groups.table(), 0.0, may_grow=False)  # another run waits for all its places
    assert groups.states == {"0": "CREATED", "1": "REMOVED"}
    assert not seats.is_waiting
    seats.look(groups.table(), 1.0, may_grow=True)
    assert groups.states["2"] == "PENDING", "it asks again as soon as nobody else does"


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("become_more", [False, pytest.param(True, marks=pytest.mark.long)])
def test_ranks_beyond_the_least_keep_their_places_when_one_dies_whoever_waits(
    become_more: bool, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    wait_for(lambda: ray.available_resources().get("CPU", 0.0) == 8, 120)
    recipe = small_recipe(Path(os.path.relpath(tiny_checkpoints["wan"])))
    recipe.learner.zero_stage = 2
    _, expected = local_run(recipe, tmp_path / "local", 5)
    placement = Placement(NOBODY, NOBODY, (), Role("learner", 1, 1.0, 0.0))
    with ExitStack() as stack:
        others = [placement_group([{"CPU": 7.0 if become_more else 6.0}])]
        stack.callback(lambda: [remove_placement_group(one) for one in others])
        wait_for(lambda: ray.available_resources().get("CPU", 0.0) == 2 - become_more, 120)
        booking = stack.enter_context(booked(placement, "run", str, can_grow=False, most_ranks=2))
        assert booking.ranks is not None
        name = booking.ranks.name
        if not become_more:
            wait_for(lambda: len(groups_with_a_place(name)) == 2, 120)
        resources = LearnerResources(1, 1.0, 0.0, 2, resize_s=1.0, seats_name=name)
        store = create_weight_store(keep=1)
        learner = stack.enter_context(closing(RayLearner(recipe, tmp_path, store, resources, str)))
        learner.start()
        assert learner.num_ranks() == 2 - become_more
        found = run_steps(learner, 0, 2)
        learner.save({"step": 2}).result()

        remove_placement_group(others.pop())
        wait_for(lambda: learner.num_ranks() == 2, 120)
        found += run_steps(learner, 2, 4)
        before = learner.starts()
        # Others wait for any place that becomes free, as generators would.
        others += [placement_group([{"CPU": 1.0}]) for _ in range(9)]
        wait_for(lambda: ray.available_resources().get("CPU", 0.0) == 0, 120)
        kill_rank()
        found += run_steps(learner, 4, 5)
        assert (learner.starts(), learner.num_ranks()) == (before + 1, 2)
    same_numbers(found, expected)

"""How a run takes its places, and learns of others: what Ray answers is made up here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import ray
from ray.train.v2._internal.execution.worker_group import WorkerGroup

from actors.learner.notices import Notices
from actors.learner.seated import check_internals
from actors.placement import Placement, Role
from actors.seats import booking, turn
from actors.seats.booking import Booking, booked
from actors.seats.holders import ALL, kept_by
from videorl.errors import ResourceError, StoppedError

NOBODY = Role("nobody", 0, 0.0, 0.0)


class Nodes:
    """Places groups as Ray does: at once if they fit, else not at all; the first nodes first."""

    def __init__(self, **cpus: float) -> None:
        self.free = cpus
        self.groups: list[Group] = []

    def group(
        self,
        bundles: Sequence[Mapping[str, float]],
        strategy: str = "PACK",
        name: str = "",
        _soft_target_node_id: str = "",
    ) -> Group:
        made = Group(name, self._found(bundles, _soft_target_node_id))
        for node, cpus in made.taken:
            self.free[node] -= cpus
        self.groups.append(made)
        return made

    def _found(
        self, bundles: Sequence[Mapping[str, float]], wanted: str
    ) -> list[tuple[str, float]]:
        left, found = dict(self.free), list[tuple[str, float]]()
        for bundle in bundles:
            fits = [node for node in left if left[node] >= bundle["CPU"]]
            if not fits:
                return []
            node = wanted if wanted in fits else fits[0]
            left[node] -= bundle["CPU"]
            found.append((node, bundle["CPU"]))
        return found

    def remove(self, group: Group) -> None:
        self.groups.remove(group)
        for node, cpus in group.taken:
            self.free[node] += cpus


class Group:
    def __init__(self, name: str, taken: list[tuple[str, float]]) -> None:
        self.name, self.taken = name, taken
        self.id = SimpleNamespace(hex=lambda: name)

    def wait(self, timeout_s: float) -> bool:
        return bool(self.taken)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    found = Nodes(large=2.0, small=1.0)
    monkeypatch.setattr(booking, "placement_group", found.group)
    monkeypatch.setattr(booking, "remove_placement_group", found.remove)
    monkeypatch.setattr("actors.seats.seats.remove_placement_group", found.remove)
    monkeypatch.setattr(booking, "placement_group_table", dict)
    monkeypatch.setattr(booking, "_nodes_of", lambda group: [node for node, _ in group.taken])
    monkeypatch.setattr(booking, "turn", lambda should_stop: nullcontext())
    monkeypatch.setattr(Booking, "look", lambda self: None)
    return found


def needing(generator_cpus: float, learner_cpus: float = 1.0) -> Placement:
    role = Role("generators", 1, generator_cpus, 0.0)
    return Placement(NOBODY, role, (), Role("learner", 1, learner_cpus, 0.0))


def test_ranks_do_not_take_the_only_node_that_is_large_enough_for_a_generator(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booking, "_SETTLE_S", 0.0)
    placement, rounds = needing(2.0), iter([False] * 9 + [True] * 99)
    # All at once, the generator is told of first.
    monkeypatch.setattr(Placement, "roles", lambda self: (self.generators, self.learner))
    with booked(placement, "run", str, lambda: next(rounds), can_grow=False):
        assert [group.taken for group in nodes.groups] == [[("large", 2.0)], [("small", 1.0)]]
    assert not nodes.groups, "all are given back"


def test_a_run_whose_places_go_to_others_again_and_again_can_be_stopped(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(booking, "_SETTLE_S", 0.0)
    removed = nodes.remove

    def taken_by_others(group: Group) -> None:
        removed(group)
        if ALL in group.name:
            nodes.free = dict.fromkeys(nodes.free, 0.0)

    monkeypatch.setattr(booking, "remove_placement_group", taken_by_others)
    answers = iter([False, False, False, True])

    def should_stop() -> bool:
        return next(answers)

    with (
        pytest.raises(StoppedError),
        booked(needing(1.0), "run", str, should_stop, can_grow=False),
    ):
        pytest.fail("others have its places")
    assert not nodes.groups, "nothing is kept by a run that stopped while it waited"


def test_workers_that_take_nothing_start_though_places_are_wanting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder, generators = Role("encoder", 1, 0.0, 0.0), Role("generators", 1, 1.0, 0.0)
    placement = Placement(encoder, generators, (), NOBODY)
    ray_says(monkeypatch, theirs=waiting(ALL, CPU=1.0))
    made = Booking(placement, {}, can_grow=False)
    made.look()
    assert made.seats(generators).is_pressed
    assert made.seats(generators).num_free() == 0
    assert not made.seats(encoder).is_pressed
    assert made.seats(encoder).num_free() > 0


def test_others_work_on_where_a_lost_place_cannot_be_had_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generators = Role("generators", 1, 1.0, 0.0)
    placement = Placement(NOBODY, generators, (), Role("learner", 1, 1.0, 1.0))
    mine: Any = [Group("mine", [])]
    for wanted, is_helped in (({"CPU": 8.0}, True), ({"GPU": 1.0}, False)):
        ray_says(monkeypatch, mine=waiting("run/learner", **wanted))
        made = Booking(placement, {"learner": mine}, can_grow=False)
        made.look()
        assert made.seats(generators).is_pressed == is_helped
        assert (made.seats(generators).num_free() == 0) == is_helped


def waiting(name: str, **bundle: float) -> dict[str, Any]:
    return {"state": "PENDING", "name": name, "bundles": {0: bundle}, "bundles_to_node_id": {}}


def ray_says(monkeypatch: pytest.MonkeyPatch, **table: Any) -> None:
    """A node with 4 of 8 CPUs free, and these placement groups."""
    answers = {"get_draining_nodes": {}, "available_resources_per_node": {"node": {"CPU": 4.0}}}
    state = SimpleNamespace(**{name: lambda found=found: found for name, found in answers.items()})
    monkeypatch.setattr("ray._private.state.state", state)
    monkeypatch.setattr(booking, "placement_group_table", lambda: table)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})


def test_waiting_for_a_turn_sends_the_class_to_the_head_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[type] = []

    class Taken:
        def options(self, **options: Any) -> Taken:
            return self

        def remote(self) -> None:
            raise ValueError("the name is taken")

    def remote(kind: type) -> Taken:
        made.append(kind)
        return Taken()

    class AnotherTurn:
        """Not made by another test."""

    monkeypatch.setattr(ray, "remote", remote)
    monkeypatch.setattr(turn, "Turn", AnotherTurn)
    asked = iter([False, False, True])
    monkeypatch.setattr(turn, "_POLL_S", 0.0)
    with pytest.raises(StoppedError), turn.turn(lambda: next(asked)):
        pytest.fail("another has the turn")
    assert made == [AnotherTurn]


def test_who_waits_for_a_turn_says_so_soon_and_then_now_and_then(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, said = 0.0, list[float]()

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        if caplog.records:
            said.append(now - seconds)
            caplog.clear()

    monkeypatch.setattr(turn, "_taken", lambda: None)
    monkeypatch.setattr(turn, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    with pytest.raises(StoppedError), turn.turn(lambda: now > 70):
        pytest.fail("another has the turn")
    assert said == [3.0, 33.0, 63.0]


def test_a_ray_with_other_internals_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_internals()
    monkeypatch.delattr(WorkerGroup, "_create_placement_group")
    with pytest.raises(ResourceError, match=r"no WorkerGroup._create_placement_group.*constraints"):
        check_internals()
    monkeypatch.setattr("ray._private.state.state", SimpleNamespace())
    with pytest.raises(ResourceError, match=r"no get_draining_nodes.*constraints"):
        booking.draining_nodes()


class Learner:
    def __init__(self, *nodes: str) -> None:
        self.now = frozenset(nodes)

    def nodes(self) -> frozenset[str]:
        return self.now


def test_a_head_that_is_away_for_a_moment_does_not_end_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[Any] = [ConnectionError("no answer"), frozenset({"a"})]

    def draining() -> frozenset[str]:
        found = answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    notices = Notices(Learner("a"), draining)
    with caplog.at_level(logging.WARNING):
        assert not notices()
    assert "ConnectionError: no answer" in caplog.text
    notices._looked -= 1.0
    assert notices()


def test_a_learner_that_comes_to_a_node_that_leaves_is_news() -> None:
    learner = Learner("a")
    notices = Notices(learner, lambda: frozenset({"b"}))
    assert not notices()
    learner.now = frozenset({"b"})
    notices._looked -= 1.0
    assert notices()
    notices._looked -= 1.0
    assert not notices(), "once"


def test_who_waits_learns_which_runs_have_places() -> None:
    def group(name: str, state: str, *bundles: Mapping[str, float]) -> dict[str, Any]:
        return {"name": name, "state": state, "bundles": dict(enumerate(bundles))}

    groups = [
        group("big/learner 1f", "CREATED", {"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 1.0}),
        group("big/generators 2e", "CREATED", {"CPU": 0.5}),
        group("small/generators 3d", "PENDING", {"CPU": 4.0}),
        group(f"{ALL}mine 4c", "CREATED", {"CPU": 4.0}),
        group("of somebody else", "CREATED", {"CPU": 4.0}),
    ]
    assert kept_by(groups) == "; kept for run big: 2.5 CPU and 2 GPU"
    assert kept_by([]) == ""

"""What an elastic pool starts and releases; nothing here starts Ray."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from actors.pool.rhythm import Rhythm
from actors.pool.roster import Roster
from actors.pool.scaling import Around, change
from actors.pool.state import Limits, State, Worker

NOBODY: Any = None
LIMITS = Limits(
    min_workers=1, max_workers=4, max_retries=0, request_timeout_s=60.0, idle_release_s=10.0
)


def worker(number: int, state: State, since: float = 100.0, node: str = "a") -> Worker:
    return Worker(number, NOBODY, state, since, node=node)


def test_a_queue_starts_workers_up_to_the_maximum() -> None:
    assert change(Roster(), 2, LIMITS, 100.0).num_starts == 2
    assert change(Roster([worker(0, "busy")]), 2, LIMITS, 100.0).num_starts == 2
    assert change(Roster([worker(0, "starting")]), 9, LIMITS, 100.0).num_starts == 3


def test_idle_workers_go_after_a_while_but_not_below_the_minimum() -> None:
    workers = [worker(0, "idle", since=80.0), worker(1, "idle", since=85.0), worker(2, "idle")]
    wanted = change(Roster(workers), 0, LIMITS, 100.0)
    assert [one.number for one in wanted.released] == [0, 1]
    assert wanted.num_starts == 0


def test_a_worker_that_loads_its_model_is_not_released_for_want_of_work() -> None:
    """They may take longer to load than workers may idle, and the next round needs them."""
    loading = [worker(number, "starting", since=0.0) for number in range(3)]
    waiting = [worker(3, "pending", since=0.0)]
    wanted = change(Roster(loading + waiting), 0, LIMITS, 100.0)
    assert [one.number for one in wanted.released] == [3], "no node has room for it, nobody asks"
    fewer = replace(LIMITS, max_workers=2)
    assert [one.number for one in change(Roster(loading), 3, fewer, 1.0).released] == [0]


def test_workers_above_a_new_maximum_go_as_soon_as_they_are_idle() -> None:
    workers = [worker(number, "busy") for number in range(5)] + [worker(5, "idle")]
    wanted = change(Roster(workers), 3, LIMITS, 100.0)
    assert [one.number for one in wanted.released] == [5]
    assert wanted.num_starts == 0


def test_a_draining_node_loses_all_its_workers_at_once() -> None:
    workers = [worker(0, "busy", node="b"), worker(1, "idle", node="b"), worker(2, "busy")]
    wanted = change(Roster(workers), 2, LIMITS, 100.0, Around(draining={"b"}))
    assert [one.number for one in wanted.released] == [1, 0]
    assert wanted.num_starts == 3, "one works elsewhere and four requests are there"


def test_what_the_next_round_needs_is_kept_and_the_rest_goes() -> None:
    workers = [worker(number, "idle", since=50.0) for number in range(4)]
    wanted = change(Roster(workers), 0, LIMITS, 100.0, Around(needed=3))
    assert [one.number for one in wanted.released] == [0]
    assert wanted.num_starts == 0, "needed soon is not needed now"


def test_who_presses_gets_the_places_of_idle_workers_that_are_not_kept() -> None:
    workers = [worker(0, "idle"), worker(1, "idle"), worker(2, "busy"), worker(3, "pending")]
    workers[0].is_seated = True
    pressed = Around(needed=4, is_pressed=True)
    wanted = change(Roster(workers), 1, LIMITS, 100.0, pressed)
    assert [one.number for one in wanted.released] == [3, 1]
    quiet = change(Roster(workers[:3]), 0, LIMITS, 200.0)
    assert [one.number for one in quiet.released] == [1, 0], "those without a kept place first"


def test_a_worker_moves_to_its_kept_place_when_its_own_is_wanted() -> None:
    """Its kept place was on a node that left; both together could keep the learner out for ever."""
    workers = [worker(0, "idle")]
    pressed = Around(is_pressed=True, num_seats=1)
    moved = change(Roster(workers), 0, LIMITS, 100.0, pressed)
    assert ([one.number for one in moved.released], moved.num_starts) == ([0], 1)
    assert not change(Roster(workers), 0, LIMITS, 100.0, Around(is_pressed=True)).released


def test_the_rhythm_of_rounds_is_learned_and_forgotten() -> None:
    rhythm = Rhythm()
    now = 0.0
    for _ in range(3):  # 8 requests at once, done after 20 s; the learner takes 100 s more
        for demand in range(1, 9):
            rhythm.note(demand, now)
        for demand in range(7, -1, -1):
            rhythm.note(demand, now + 20.0 - demand)
        now += 120.0
    now -= 120.0
    assert rhythm.needed(10.0, now + 119.0) == 8, "the round after this one needs them"
    assert rhythm.needed(10.0, now + 300.0) == 0, "there was none for far longer than usual"
    first = Rhythm()
    first.note(8, 0.0)
    first.note(0, 20.0)
    assert first.needed(10.0, 29.0) == 8
    assert first.needed(10.0, 31.0) == 0, "nobody knows yet that there are rounds"


def test_a_roster_files_workers_in_the_order_in_which_they_came() -> None:
    first, second, third = workers = [worker(number, "busy") for number in range(3)]
    roster = Roster(workers)
    assert roster.last_used(avoid=None) is None
    for one in (second, first, third):
        roster.move(one, "idle")
    assert roster.oldest("idle") is second
    assert roster.last_used(avoid=None) is third
    assert roster.last_used(avoid=third.number) is first
    roster.move(third, "gone")
    roster.move(second, "busy")
    assert roster.last_used(avoid=first.number) is first, "nobody else is there"
    assert (len(roster), roster.count("idle"), roster.count("busy")) == (2, 1, 1)
    assert third not in roster and second in roster

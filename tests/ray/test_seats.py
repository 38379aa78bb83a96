"""The places of a run: all or none, kept while workers are replaced, and no more than fit."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from actors.placement import Placement, Role, start_actor
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits
from actors.seats.booking import Booking, booked
from actors.seats.room import could_have, num_that_fit
from actors.seats.seats import Seats
from tests.ray.pools import Worker, call, wait_for
from videorl.errors import StoppedError, WorkLostError

pytestmark = pytest.mark.ray

NOBODY = Role("nobody", 0, 0.0, 0.0)
LIMITS = Limits(
    min_workers=1, max_workers=20, max_retries=2, request_timeout_s=60.0, idle_release_s=300.0
)


def needing(generators: int = 1, learner: int = 0, cpus: float = 1.0) -> Placement:
    role = Role("generators", generators, cpus, 0.0)
    return Placement(NOBODY, role, (), Role("learner", learner, 1.0, 0.0))


@contextmanager
def pool_in(booking: Booking, placement: Placement, limits: Limits) -> Iterator[ElasticPool]:
    """A pool of workers with a CPU each in the places of a booking."""
    seats = booking.seats(placement.generators)

    def create(number: int) -> Any:
        return start_actor(Worker, {"num_cpus": 1} | seats.options(number), number)

    pool = ElasticPool("generators", create, limits, seats)
    try:
        yield pool
    finally:
        pool.close()


def free_cpus() -> float:
    return ray.available_resources().get("CPU", 0.0)


def in_background(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_room_is_counted_node_by_node() -> None:
    nodes = [{"CPU": 3.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 4.0}, {"CPU": 0.5}]
    assert num_that_fit({"CPU": 1.0}, nodes) == 4
    assert num_that_fit({"CPU": 1.0, "GPU": 1.0}, nodes) == 2
    assert num_that_fit({"CPU": 0.1, "GPU": 0.33}, nodes) == 3 + 10
    assert num_that_fit({"CPU": 0.1, "sampling": 1.0}, nodes) == 0
    assert num_that_fit({}, nodes) == math.inf


def test_only_who_could_have_its_places_presses() -> None:
    total, kept = {"CPU": 8.0, "GPU": 2.0}, [{"CPU": 1.0, "GPU": 1.0}, {"CPU": 2.0}]
    assert could_have([{"CPU": 2.0}, {"CPU": 3.0, "GPU": 1.0}], kept, total)
    assert not could_have([{"CPU": 2.0}, {"CPU": 3.5}], kept, total)
    assert not could_have([{"GPU": 1.0}, {"GPU": 0.5}], kept, total)
    assert not could_have([{"sampling": 1.0}], kept, total)


def test_workers_that_were_started_count_before_ray_s_sums_know_of_them() -> None:
    seats, told = Seats(), list[float]()
    seats.watched_by(lambda: told.append(seats.num_free()))
    seats.are({}, (), 2.0)
    assert not told, "there was any amount of room before"
    assert [seats.take(number) for number in (0, 1)] == [False, False]
    seats.are({}, (), 2.0)  # they are not placed yet
    seats.has_come(0)
    assert seats.num_free() == 0
    seats.give_back(1)
    assert seats.num_free() == 1
    seats.are({}, (), -1.0)
    assert (seats.num_free(), seats.is_pressed, told) == (0, True, [0])


@pytest.mark.usefixtures("cluster")
def test_a_run_takes_all_its_places_or_waits_holds_none_and_says_who_has_them(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wait_for(lambda: free_cpus() == 8)
    big, has_both, may_go = needing(generators=3, learner=2), threading.Event(), threading.Event()
    seen: list[float] = []

    def second() -> None:
        with booked(big, "second", str, can_grow=False):
            has_both.set()
            may_go.wait(180)

    with booked(big, "first", str, can_grow=False) as first:
        other = in_background(second)
        wait_for(lambda: bool(seen.append(free_cpus())) or seen[-1] == 3)
        wait_for(lambda: "kept for run first: 5 CPU" in caplog.text, 120)
        assert free_cpus() == 3, "the second holds none of the three while it waits"
        first.look()
        assert not first.seats(big.generators).is_pressed, "no making room would help it"
        with (
            pytest.raises(StoppedError, match="waited for places"),
            booked(needing(), "third", str, lambda: True, can_grow=False),
        ):
            pytest.fail("the second has not got its places")
    assert has_both.wait(180)
    wait_for(lambda: free_cpus() == 3)
    may_go.set()
    other.join()
    wait_for(lambda: free_cpus() == 8)


@pytest.mark.usefixtures("cluster")
def test_a_pool_starts_no_more_workers_than_fit_and_makes_room_for_who_waits(
    tmp_path: Path,
) -> None:
    wait_for(lambda: free_cpus() == 8)
    placement = needing(generators=1, learner=5)
    with ExitStack() as stack:
        booking = stack.enter_context(booked(placement, "first", str, can_grow=False))
        pool = stack.enter_context(pool_in(booking, placement, LIMITS))
        work = [pool.submit(call("wait_for", tmp_path / "go on")) for _ in range(12)]
        wait_for(lambda: pool.stats().busy == 3, 180)
        time.sleep(3.0)  # several looks at what is free
        stats = pool.stats()
        assert (stats.workers, stats.starting, stats.queued) == (3, 0, 9), "others would only wait"
        (tmp_path / "go on").touch()
        for one in work:
            one.result(180)
        assert pool.stats().workers == 3, "they idle for less than 300 s"
        # Another run needs what they hold: those above the minimum go at once.
        with booked(needing(generators=2), "second", str, can_grow=False):
            assert pool.stats().workers == 1
            assert pool.submit(call("echo", "kept")).result(180).value[1] == "kept"


@pytest.mark.usefixtures("cluster")
def test_the_place_of_a_worker_that_dies_is_kept_for_the_next_whoever_waits() -> None:
    wait_for(lambda: free_cpus() == 8)
    placement = needing(generators=1)
    with ExitStack() as stack:
        booking = stack.enter_context(booked(placement, "first", str, can_grow=False))
        pool = stack.enter_context(pool_in(booking, placement, LIMITS))
        assert pool.wait_until_serving(180)
        waiting = [placement_group([{"CPU": 1.0}]) for _ in range(9)]
        stack.callback(lambda: [remove_placement_group(one) for one in waiting])
        wait_for(lambda: free_cpus() == 0)
        number, _ = pool.submit(call("echo", "here")).result(180).value
        with pytest.raises(WorkLostError):
            pool.submit(call("die", 0.0)).result(180)
        assert pool.submit(call("echo", "back")).result(180).value == (number + 3, "back")
        # What `videorl scale` gives up, others get.
        pool.resize(0, 1)
        pool.submit(call("die", 0.0))  # its repeats wait for a place, like the others
        wait_for(lambda: len(booking.seats(placement.generators).kept) == 0, 180)

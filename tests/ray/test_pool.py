"""The elastic pool, with workers that do next to nothing but really live and die."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.placement import start_actor
from actors.pool.pool import ElasticPool
from tests.ray.pools import (
    LIMITS,
    BrokenWorker,
    Make,
    Worker,
    call,
    has_died,
    wait_for,
)
from videorl.errors import (
    ConfigError,
    PoolFailedError,
    PromptError,
    WeightMismatchError,
    WorkLostError,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_requests_are_served_first_in_first_out(make: Make, tmp_path: Path) -> None:
    pool, file = make(), tmp_path / "order"
    futures = [pool.submit(call("note", value, file)) for value in range(6)]
    for future in futures:
        future.result(180)
    assert file.read_text().split() == ["0", "1", "2", "3", "4", "5"]
    stats = pool.stats()
    assert (stats.workers, stats.completed, stats.retried, stats.queued) == (1, 6, 0, 0)


def test_it_grows_with_the_queue_and_shrinks_when_idle(make: Make) -> None:
    pool = make(max_workers=3, idle_release_s=1.0)
    futures = [pool.submit(call("echo", value, 0.7)) for value in range(9)]
    answers = [future.result(180).value for future in futures]
    assert [value for _, value in answers] == list(range(9))
    assert len({number for number, _ in answers}) == 3
    wait_for(lambda: pool.stats().workers == 1)
    assert pool.stats().replaced == 0


def test_resize_while_working(make: Make) -> None:
    pool = make()
    assert pool.wait_until_serving(180)
    pool.resize(3, 3)
    wait_for(lambda: pool.stats().workers == 3)
    futures = [pool.submit(call("echo", value, 0.5)) for value in range(3)]
    wait_for(lambda: pool.stats().busy == 3)
    pool.resize(1, 1)
    assert [future.result(180).value[1] for future in futures] == [0, 1, 2]
    wait_for(lambda: pool.stats().workers == 1)
    with pytest.raises(ConfigError, match="min_workers 3 and max_workers 2"):
        pool.resize(3, 2)


def test_a_worker_that_dies_is_replaced_and_its_request_repeated(
    make: Make, tmp_path: Path
) -> None:
    pool = make()
    future = pool.submit(call("media", tmp_path / "died", num_returns=2))
    later = pool.submit(call("echo", "later"))
    reply = future.result(180)
    assert reply.value == 1, "the second worker answered"
    assert len(ray.get(reply.media[0])) == 2**20
    assert later.result(180).value == (1, "later")
    stats = pool.stats()
    assert (stats.completed, stats.retried, stats.replaced) == (2, 1, 1)


def test_one_death_does_not_use_up_the_retries_on_workers_that_died_with_it(make: Make) -> None:
    pool = make(min_workers=4, max_workers=4, max_retries=1)
    wait_for(lambda: pool.stats().workers == 4)
    handles = [worker.handle for worker in pool._dispatcher.roster]
    for handle in handles:  # as if their node had gone
        ray.kill(handle)
    wait_for(lambda: all(has_died(handle) for handle in handles))
    assert pool.submit(call("echo", "alive")).result(180).value[1] == "alive"
    assert pool.stats().retried == 1


def test_a_busy_worker_is_lent_requests_ahead_and_its_death_costs_only_who_is_to_blame(
    make: Make,
) -> None:
    pool = make(max_retries=0, ahead=1)
    assert pool.wait_until_serving(180)
    deadly = pool.submit(call("die", 0.5))
    others = [pool.submit(call("echo", value)) for value in range(2)]
    wait_for(lambda: pool.stats().queued == 1)  # the worker has two of the three
    assert [future.result(180).value[1] for future in others] == [0, 1]
    with pytest.raises(WorkLostError, match="given up after 1 attempts"):
        deadly.result(180)
    stats = pool.stats()
    assert (stats.completed, stats.retried, stats.replaced) == (2, 2, 2)


def test_what_goes_behind_waits_for_all_that_training_waits_for(make: Make, tmp_path: Path) -> None:
    pool, notes = make(max_retries=1), tmp_path / "notes"
    assert pool.wait_until_serving(180)
    first = pool.submit(call("wait_for", tmp_path / "go on"))
    behind = [
        pool.submit(call("note", f"behind {number}", notes), is_behind=True) for number in range(2)
    ]
    # A worker that dies of a request that goes behind: its repeat goes behind too.
    deadly = pool.submit(call("media", tmp_path / "died"), is_behind=True)
    others = [pool.submit(call("note", number, notes)) for number in range(2)]
    wait_for(lambda: pool.stats().queued == 5)
    (tmp_path / "go on").touch()
    for future in (first, *behind, deadly, *others):
        future.result(180)
    assert notes.read_text().split("\n") == ["0", "1", "behind 0", "behind 1", ""]
    assert pool.stats().queued == 0


def test_what_a_slow_worker_was_lent_ahead_goes_to_a_worker_that_becomes_idle(
    make: Make, tmp_path: Path
) -> None:
    pool = make(ahead=1)
    assert pool.wait_until_serving(180)
    slow = pool.submit(call("wait_for", tmp_path / "go on"))
    ahead = pool.submit(call("echo", "ahead"))
    wait_for(lambda: pool.stats().queued == 0)
    pool.resize(2, 2)
    assert ahead.result(180).value == (1, "ahead")
    assert not slow.done()
    (tmp_path / "go on").touch()
    assert slow.result(180).value == 0
    wait_for(lambda: pool.stats().busy == 0)
    stats = pool.stats()
    assert (stats.completed, stats.retried, stats.replaced) == (2, 0, 0)


def test_wrong_weights_fence_the_worker(make: Make, tmp_path: Path) -> None:
    pool = make()
    error = WeightMismatchError("live parameters differ")
    assert pool.submit(call("fail", error, tmp_path / "failed")).result(180).value == 1
    assert (pool.stats().replaced, pool.stats().fenced) == (1, 1)


def test_other_errors_are_retried_on_another_worker_and_then_named(
    make: Make, tmp_path: Path
) -> None:
    pool = make(min_workers=2, max_workers=2)
    wait_for(lambda: pool.stats().workers == 2)
    once = pool.submit(call("fail", ZeroDivisionError("bad luck"), tmp_path / "failed"))
    assert once.result(180).value in (0, 1)
    assert pool.stats().replaced == 0
    with pytest.raises(WorkLostError, match=r"after 3 attempts.*ZeroDivisionError: always"):
        pool.submit(call("fail", ZeroDivisionError("always"))).result(180)


def test_an_error_on_purpose_is_not_retried(make: Make) -> None:
    pool = make()
    with pytest.raises(PromptError, match="too long"):
        pool.submit(call("fail", PromptError("too long"))).result(180)
    assert pool.stats().retried == 0


def test_a_pool_whose_workers_cannot_start_fails_with_their_error(make: Make) -> None:
    pool = make(kind=BrokenWorker, max_workers=2)
    started = time.monotonic()
    with pytest.raises(PoolFailedError, match="no such checkpoint: somewhere/model"):
        pool.submit(call("echo", 1)).result(180)
    assert time.monotonic() - started < 100, "it does not try for ever"
    with pytest.raises(PoolFailedError, match="no such checkpoint"):
        pool.wait_until_serving(1)
    with pytest.raises(PoolFailedError, match="no such checkpoint"):
        pool.submit(call("echo", 2)).result(180)


def test_media_outlive_the_worker_that_made_them(make: Make) -> None:
    pool = make()
    process_id = pool.submit(call("process_id")).result(180).value
    media = pool.submit(call("media", num_returns=2)).result(180).media
    pool.close()
    wait_for(lambda: not Path(f"/proc/{process_id}").exists())
    assert len(ray.get(media[0])) == 2**20


def test_submitting_never_waits_for_the_dispatcher() -> None:
    """Ray's own threads submit; the dispatcher may wait for them, in `ray.kill` for instance."""
    started, may_go_on = threading.Event(), threading.Event()

    def worker(number: int) -> Any:
        started.set()
        assert may_go_on.wait(180)
        return start_actor(Worker, {"num_cpus": 1}, number)

    pool = ElasticPool("test", worker, LIMITS)
    assert started.wait(180)
    submitting = threading.Thread(target=pool.submit, args=(call("echo", 1),), daemon=True)
    submitting.start()
    submitting.join(120)
    assert not submitting.is_alive()
    may_go_on.set()
    assert pool.submit(call("echo", 2)).result(180).value[1] == 2
    pool.close()


def test_closing_ends_what_waits(make: Make) -> None:
    pool = make()
    running = pool.submit(call("echo", 1, 100.0))
    queued = pool.submit(call("echo", 2))
    wait_for(lambda: pool.stats().busy == 1)
    pool.close()
    for future in (running, queued, pool.submit(call("echo", 3))):
        with pytest.raises(WorkLostError, match="closed"):
            future.result(180)

"""The elastic pool, with workers that do next to nothing but really live and die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.placement_group import placement_group, remove_placement_group

from actors.placement import start_actor
from actors.pool import ending, placing
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits, Starts
from videorl.errors import (
    CheckpointError,
    ConfigError,
    PoolFailedError,
    PromptError,
    WeightMismatchError,
    WorkLostError,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

LIMITS = Limits(
    min_workers=1, max_workers=1, max_retries=2, request_timeout_s=60.0, idle_release_s=60.0
)


def exit_once(marker: Path) -> None:
    """End this process without goodbye, the first time that anyone calls this with `marker`."""
    if not marker.exists():
        marker.touch()
        os._exit(1)


def has_died(handle: ActorHandle) -> bool:
    """Return whether an actor, killed a moment ago, answers no more."""
    try:
        ray.get(handle.ready.remote())
    except RayActorError:
        return True
    return False


class Worker:
    """Answers with its own number and notes the order of requests in a file."""

    def __init__(self, number: int) -> None:
        self._number = number

    def ready(self) -> str | None:
        """Be ready."""

    def echo(self, value: Any, seconds: float = 0.0) -> tuple[int, Any]:
        """Answer after some seconds."""
        time.sleep(seconds)
        return self._number, value

    def note(self, value: Any, file: Path) -> None:
        """Append to a file."""
        with file.open("a") as lines:
            lines.write(f"{value}\n")

    def media(self, marker: Path | None = None) -> tuple[int, bytes]:
        """Answer, with one large object beside it; die the first time if given a marker."""
        if marker is not None:
            exit_once(marker)
        return self._number, b"x" * 2**20

    def die(self, seconds: float) -> None:
        """End this process without an answer, after some seconds."""
        time.sleep(seconds)
        os._exit(1)

    def fail(self, error: Exception, marker: Path | None = None) -> int:
        """Raise, or raise only the first time if given a marker."""
        if marker is None or not marker.exists():
            if marker is not None:
                marker.touch()
            raise error
        return self._number

    def hang_first(self, marker: Path) -> int:
        """Never answer, the first time."""
        if not marker.exists():
            marker.touch()
            time.sleep(1000)
        return self._number

    def wait_for(self, file: Path) -> int:
        """Answer once there is a file."""
        while not file.exists():
            time.sleep(0.02)
        return self._number

    def process_id(self) -> int:
        """Return the process."""
        return os.getpid()


class Apart(Worker):
    """Says that it is on a node of its own."""

    def ready(self) -> str:
        """Return the node."""
        return f"node {self._number}"


class BrokenWorker:
    """Cannot start."""

    def ready(self) -> None:
        """Fail."""
        raise CheckpointError("no such checkpoint: somewhere/model")


class Loading:
    """Takes for ever to start, the first time; cannot while there is a file `gone`."""

    def __init__(self, marker: Path, gone: Path | None = None) -> None:
        self._marker, self._gone = marker, gone

    def ready(self) -> None:
        """Load."""
        if self._gone is not None and self._gone.exists():
            raise OSError("the storage is away")
        if self._gone is None and not self._marker.exists():
            self._marker.touch()
            time.sleep(1000)

    def process_id(self) -> int:
        """Return the process."""
        return os.getpid()

    def die(self) -> None:
        """End this process without an answer."""
        os._exit(1)


class HangingAsItIsMade(Worker):
    """The first one hangs before it can answer anything, as one that cannot read its modules."""

    def __init__(self, marker: Path) -> None:
        super().__init__(1)
        if not marker.exists():
            marker.touch()
            time.sleep(1000)


class Waiting:
    """Has an id, as the handle of any actor."""

    _actor_id = ray.ActorID.nil()


class Stopping(Worker):
    """The first one is stopped as it is made, or while it loads, and says before who it is."""

    def __init__(self, marker: Path, is_early: bool) -> None:
        super().__init__(1)
        self._marker = marker
        if is_early:
            self._stop()

    def ready(self) -> None:
        """Load."""
        self._stop()

    def _stop(self) -> None:
        if not self._marker.exists():
            self._marker.write_text(f"{os.getpid()}")
            os.kill(os.getpid(), signal.SIGSTOP)


Make = Callable[..., ElasticPool]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make pools of `Worker`s that are closed in the end."""
    pools: list[ElasticPool] = []

    def create(kind: Any = Worker, **changes: Any) -> ElasticPool:
        def worker(number: int) -> Any:
            if isinstance(kind, partial):
                return start_actor(cast(type, kind.func), {"num_cpus": 1}, *kind.args)
            arguments = (number,) if kind in (Worker, Apart) else ()
            return start_actor(kind, {"num_cpus": 1}, *arguments)

        pools.append(ElasticPool("test", worker, replace(LIMITS, **changes)))
        return pools[-1]

    yield create
    for pool in pools:
        pool.close()


def call(method: str, *arguments: Any, num_returns: int = 1) -> Callable[[Any], list[Any]]:
    """Return a pool call of one method."""

    def invoke(worker: Any) -> list[Any]:
        refs = getattr(worker, method).options(num_returns=num_returns).remote(*arguments)
        return refs if num_returns > 1 else [refs]

    return invoke


def wait_for(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


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


def test_a_worker_that_hangs_is_replaced(make: Make, tmp_path: Path) -> None:
    pool = make(request_timeout_s=1.0)
    assert pool.submit(call("hang_first", tmp_path / "hung")).result(180).value == 1
    assert (pool.stats().replaced, pool.stats().fenced) == (1, 0)


def test_what_a_worker_on_a_leaving_node_has_goes_to_another_at_once(
    make: Make, tmp_path: Path
) -> None:
    pool = make(kind=Apart, max_retries=0)
    assert pool.wait_until_serving(180)
    request = pool.submit(call("wait_for", tmp_path / "go on"))
    wait_for(lambda: pool.stats().busy == 1)
    pool.drain(frozenset({"node 0"}))
    wait_for(lambda: pool.stats().retried == 1)
    (tmp_path / "go on").touch()
    assert request.result(180).value == 1, "it was no failure: no retry was allowed"
    assert (pool.stats().replaced, pool.stats().completed) == (0, 1)


def test_a_worker_that_hangs_while_it_loads_is_replaced(make: Make, tmp_path: Path) -> None:
    pool = make(partial(Loading, tmp_path / "hung"), start_timeout_s=2.0)
    assert pool.submit(call("process_id")).result(180).value
    assert (pool.stats().replaced, pool.stats().starting) == (1, 0)


def test_a_worker_that_hangs_before_it_answers_is_replaced(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start has seven seconds; on a slow machine more than the first may take longer."""
    monkeypatch.setattr(placing, "_ASK_S", 2.0)
    pool = make(partial(HangingAsItIsMade, tmp_path / "hung"), start_timeout_s=5.0)
    assert pool.submit(call("process_id")).result(120).value
    assert pool.stats().replaced >= 1
    assert pool.stats().starting == 0


@pytest.mark.parametrize("is_early", [True, False])
def test_a_stopped_process_that_ray_does_not_end_does_not_stay(
    is_early: bool, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's node gives up where it has no connection to the process yet, which is up to chance."""
    monkeypatch.setattr(ray, "kill", lambda *_, **__: None)
    monkeypatch.setattr(ending, "_RAY_S", 0.1)
    monkeypatch.setattr(placing, "_ASK_S", 2.0)
    pool = make(partial(Stopping, tmp_path / "stopped", is_early), start_timeout_s=5.0)
    assert pool.submit(call("process_id")).result(120).value
    stopped = int((tmp_path / "stopped").read_text())
    wait_for(lambda: not psutil.pid_exists(stopped))


@pytest.mark.parametrize(
    ("state", "port", "has_process"),
    [("waits", 0, False), ("waits, sent by another node", 45123, False), ("is made", 15425, True)],
)
def test_a_worker_has_a_process_where_its_port_is_its_own(
    state: str, port: int, has_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ray 2.60 was seen to have it on four nodes."""
    address = {"IPAddress": "10.83.0.12", "Port": port, "NodeID": "36186a"}
    nodes = [{"NodeID": "7809a2", "NodeManagerPort": 39137}]
    nodes += [{"NodeID": "36186a", "NodeManagerPort": 45123}]
    monkeypatch.setattr("ray._private.state.actors", lambda name: {"Address": address})
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    assert placing._has_process(Waiting()) is has_process, state


def test_a_worker_without_a_place_waits_for_as_long_as_it_takes(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = list[bool](), placing._has_process
    monkeypatch.setattr(
        placing, "_has_process", lambda handle: asked.append(ask(handle)) or asked[-1]
    )
    monkeypatch.setattr(placing, "_ASK_S", 0.5)  # and minutes to start in, once it has its place
    place = placement_group([{"CPU": 8.0}])
    assert place.wait(120)
    pool = make()
    wait_for(lambda: len(asked) >= 3)
    assert not any(asked)
    assert (pool.stats().pending, pool.stats().replaced) == (1, 0)
    remove_placement_group(place)
    assert pool.submit(call("echo", "here")).result(120).value == (0, "here")


def test_a_pool_that_has_served_tries_for_a_time_before_it_gives_up(
    make: Make, tmp_path: Path
) -> None:
    """Storage that is away for a while must not end a run; for good, it must."""
    gone = tmp_path / "gone"
    pool = make(partial(Loading, tmp_path / "none", gone), patience_s=600.0, max_retries=0)
    assert pool.submit(call("process_id")).result(180).value
    gone.touch()
    pool.submit(call("die"))
    wait_for(lambda: pool.stats().replaced > 3, 180)
    assert pool.wait_until_serving(0), "the pool has not failed"
    gone.unlink()
    assert pool.submit(call("process_id")).result(180).value


def test_a_pool_that_has_served_gives_up_in_the_end(make: Make, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    pool = make(partial(Loading, tmp_path / "none", gone), patience_s=1.0, max_retries=0)
    assert pool.submit(call("process_id")).result(180).value
    gone.touch()
    pool.submit(call("die"))
    with pytest.raises(PoolFailedError, match="the storage is away"):
        pool.submit(call("process_id")).result(180)


def test_a_straggler_s_request_goes_to_an_idle_worker_too(make: Make, tmp_path: Path) -> None:
    pool = make(min_workers=2, max_workers=2)
    for result in [pool.submit(call("echo", value), "alike") for value in range(6)]:
        result.result(180)
    wait_for(lambda: pool.stats().workers == 2)
    started = time.monotonic()
    pool.submit(call("hang_first", tmp_path / "hung"), "alike").result(180)
    assert time.monotonic() - started < 30, "not by the timeout of 60 s"
    stats = pool.stats()
    assert (stats.repeated_for_speed, stats.replaced, stats.retried) == (1, 0, 0)


def test_patience_begins_when_nobody_serves_any_more() -> None:
    starts = Starts()
    starts.succeeded()
    starts.failed(is_serving=True)
    starts.first_failure -= 1000.0  # as if long ago, while others served
    starts.failed(is_serving=True)
    starts.failed(is_serving=False)
    assert not starts.are_hopeless(3, 600.0)
    starts.first_failure -= 601.0
    assert starts.are_hopeless(3, 600.0)


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

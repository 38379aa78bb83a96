"""The elastic pool, whose workers hang, are stopped, cannot start, or have no place."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group, remove_placement_group

from actors.pool import ending, placing
from actors.pool.state import Starts
from tests.ray.pools import (
    Apart,
    HangingAsItIsMade,
    Loading,
    Make,
    Stopping,
    Waiting,
    call,
    wait_for,
)
from videorl.errors import (
    PoolFailedError,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


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

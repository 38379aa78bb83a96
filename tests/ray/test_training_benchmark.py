"""The arithmetic of the benchmark; its runs need minutes, and are done by hand."""

from __future__ import annotations

import pytest

from actors.pool.state import PoolStats
from jobs.bench.stages import Watch, shares

pytestmark = pytest.mark.ray


def stats(busy_s: float, ready_s: float) -> PoolStats:
    return PoolStats(
        workers=2,
        starting=0,
        pending=0,
        busy=1,
        queued=0,
        completed=0,
        retried=0,
        replaced=0,
        fenced=0,
        repeated_for_speed=0,
        busy_s=busy_s,
        ready_s=ready_s,
    )


def test_shares_leave_out_the_first_and_the_last_step() -> None:
    slow = {"time/learn_s": 99.0, "time/publish_s": 99.0, "weights/bytes": 8.0}
    step = {"time/learn_s": 2.0, "time/publish_s": 0.5, "weights/bytes": 8.0}
    watch = Watch(
        times=[100.0, 105.0, 110.0, 190.0],
        rows=[slow, step, step, slow],
        generators=[stats(50, 60), stats(0, 0), stats(68, 80), stats(68, 240)],
        scorers=[stats(0, 50), stats(0, 0), stats(1, 60), stats(1, 140)],
    )
    found = shares(watch)
    assert found["seconds per step"] == 5.0
    assert found["generation busy"] == 0.9  # 18 of 20 worker-seconds
    assert found["scoring busy"] == 0.1
    assert found["learning busy"] == 0.5  # 5 of 10 seconds
    assert found["bottleneck"] == "generation, 90.0% of the wall time"
    assert found["publication (digest, pack, put), s"] == 0.5
    assert found["publication, bytes"] == 8

"""Whatever a tracker does, the run neither ends nor waits, and what was lost is counted."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.tracked import fixed_videos
from videorl.run.sinks import FanOut, JsonlSink, fan_out, read_metrics
from videorl.trackers import behind
from videorl.trackers.behind import Behind
from videorl.trackers.tracker import FixedVideo


class Recorder:
    """A tracker that remembers what it is told, and does something first."""

    def __init__(self, before: Callable[[str, int], None] = lambda kind, step: None) -> None:
        self.told: list[tuple[str, Any]] = []
        self._before = before

    def config(self, settings: Mapping[str, Any]) -> None:
        self.told.append(("config", dict(settings)))

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        self._before("metrics", step)
        self.told.append(("metrics", step))

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        self._before("videos", step)
        self.told.append(("videos", step))

    def summary(self, facts: Mapping[str, Any]) -> None:
        self.told.append(("summary", dict(facts)))

    def truncate(self, step: int) -> None:
        self.told.append(("truncate", step))

    def close(self) -> None:
        self.told.append(("close", None))


def test_it_is_told_all_in_order_on_one_other_thread(tmp_path: Path) -> None:
    threads = set[int]()
    tracker = Recorder(lambda kind, step: threads.add(threading.get_ident()))
    one = Behind("one", lambda: tracker, {"seed": 1})
    one.write(0, {"x": 1.0})
    one.videos(0, fixed_videos(tmp_path))
    one.summary({"a": 2})
    one.close()
    assert tracker.told == [
        ("config", {"seed": 1}),
        ("metrics", 0),
        ("videos", 0),
        ("summary", {"a": 2}),
        ("close", None),
    ]
    assert len(threads) == 1
    assert threading.get_ident() not in threads
    assert one.num_lost == 0


def test_errors_are_counted_logged_ever_more_rarely_and_among_the_metrics(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(kind: str, step: int) -> None:
        if step < 5:
            raise OSError(28, "No space left on device")

    tracker = Recorder(fail)
    one = Behind("mlflow", lambda: tracker, {})
    sinks = FanOut([JsonlSink(tmp_path / "metrics.jsonl")], [one])
    for step in range(7):
        sinks.write(step, {"x": 1.0})
        _until(lambda step=step: one.num_lost + len(tracker.told) == step + 2)
    sinks.close()
    assert [step for kind, step in tracker.told if kind == "metrics"] == [5, 6]
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row.get("tracker/mlflow_lost") for row in rows] == [None, 1, 2, 3, 4, 5, 5]
    logged = [line for line in caplog.messages if "No space left" in line]
    assert len(logged) == 3, "the first, second and fourth"
    assert caplog.messages[-1] == "mlflow lacks 5 entries of this run"
    beside = JsonlSink(tmp_path / "beside.jsonl")
    fan_out([sinks, beside]).write(7, {})
    assert read_metrics(tmp_path / "beside.jsonl") == [{"step": 7, "tracker/mlflow_lost": 5.0}]


def test_trackers_that_hang_at_the_end_are_waited_for_together() -> None:
    hang, hangs = threading.Event(), threading.Barrier(9)

    def wait(kind: str, step: int) -> None:
        hangs.wait(120)
        hang.wait()

    some = [Behind("wandb", lambda: Recorder(wait), {}, patience_s=1.0) for _ in range(8)]
    sinks = FanOut([], some)
    sinks.write(0, {"x": 1.0})
    hangs.wait(120)
    started = time.monotonic()
    sinks.close()
    assert 1.0 <= time.monotonic() - started < 6, "not eight seconds"
    hang.set()


def test_a_tracker_that_exits_does_not_end_its_thread(caplog: pytest.LogCaptureFixture) -> None:
    def leave(kind: str, step: int) -> None:
        if step == 0:
            sys.exit(1)

    tracker = Recorder(leave)
    one = Behind("wandb", lambda: tracker, {})
    for step in range(2):
        one.write(step, {})
    one.close()
    assert [kind for kind, _ in tracker.told] == ["config", "metrics", "close"]
    assert one.num_lost == 1
    assert "SystemExit: 1" in caplog.text


def test_a_tracker_that_hangs_costs_the_run_no_time_and_no_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hang, hangs = threading.Event(), threading.Event()

    def wait(kind: str, step: int) -> None:
        hangs.set()
        hang.wait()

    one = Behind("wandb", lambda: Recorder(wait), {}, None, 10, patience_s=0.2)
    one.write(0, {"x": 1.0})
    assert hangs.wait(120)
    started = time.monotonic()
    for step in range(1, 1000):
        one.write(step, {"x": 1.0})
    assert one.num_lost == 989
    one.close()
    assert time.monotonic() - started < 30, "no write waited for it"
    assert "wandb has not taken the last 11 entries within 0 s" in caplog.text
    hang.set()


def test_what_cannot_be_opened_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(behind, "_AGAIN_S", 0.05)
    tracker, attempts = Recorder(), list[float]()

    def opened() -> Recorder:
        attempts.append(time.monotonic())
        if len(attempts) < 3:
            raise ConnectionError("the network is away")
        return tracker

    one = Behind("wandb", opened, {"seed": 1})
    for step in range(20):
        one.write(step, {})
        time.sleep(0.02)
    one.close()
    assert len(attempts) == 3
    assert tracker.told[0] == ("config", {"seed": 1})
    steps = [step for kind, step in tracker.told if kind == "metrics"]
    assert steps == list(range(20 - len(steps), 20))
    assert one.num_lost == 20 - len(steps) > 1


def test_steps_that_a_resumed_run_does_again_are_told_once(tmp_path: Path) -> None:
    told = []
    for first, last in ((0, 5), (3, 8)):  # killed after step 4, with a checkpoint of step 3
        tracker = Recorder()
        one = Behind("wandb", lambda tracker=tracker: tracker, {}, tmp_path / "trackers/wandb.json")
        one.truncate(first)
        for step in range(first, last):
            one.write(step, {})
        one.videos(4, [])
        one.close()
        told += [each for each in tracker.told if each[0] in ("metrics", "videos")]
    assert told == [
        *(("metrics", step) for step in range(5)),
        ("videos", 4),
        *(("metrics", step) for step in range(5, 8)),
    ]


def test_a_damaged_memory_of_steps_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "sent.json").write_text("{")
    tracker = Recorder()
    one = Behind("wandb", lambda: tracker, {}, tmp_path / "sent.json")
    one.write(0, {})
    one.close()
    assert ("metrics", 0) in tracker.told
    assert "steps may be told twice" in caplog.text


def _until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)

"""A store that is away for a moment ends nothing, when a run starts or a rank restores."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.s3_server import Way
from videorl.config import CheckpointConfig
from videorl.errors import StoreLostError
from videorl.run.checkpoints import open_checkpoints
from videorl.run.stored import working_copy
from videorl.storage.patience import patiently
from videorl.storage.place import below


@pytest.fixture
def away(way: Way, caplog: pytest.LogCaptureFixture) -> Callable[[], None]:
    """Returns what takes the store away until somebody says to wait for it."""
    caplog.set_level(logging.WARNING)

    def come_back() -> None:
        end = time.monotonic() + 120
        while "waits for its store" not in caplog.text and time.monotonic() < end:
            time.sleep(0.05)
        way.mode = "pass"

    def leave() -> None:
        way.mode = "refuse"
        way.interrupt()
        threading.Thread(target=come_back, daemon=True).start()

    return leave


def test_a_run_starts_as_soon_as_its_store_is_back(away: Callable[[], None], s3: str) -> None:
    with working_copy(s3, 120, from_scratch=False, take_over=False) as root:
        (root / "metrics.jsonl").write_text("1\n")
    away()
    with working_copy(s3, 120, from_scratch=False, take_over=False) as root:
        assert (root / "metrics.jsonl").read_text() == "1\n"


def test_a_rank_restores_as_soon_as_the_store_is_back(
    away: Callable[[], None], s3: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = CheckpointConfig(location=below(s3, "checkpoints"), patience_s=120)
    written = open_checkpoints(config, tmp_path)
    (written.begin(10) / "optimizer.pt").write_text("whole")
    written.commit(10, {"loop": {}})
    rank = open_checkpoints(config, tmp_path)
    away()
    found = rank.latest()
    assert found is not None
    assert (found[0] / "optimizer.pt").read_text() == "whole"
    rank.let_go()
    assert not found[0].exists()
    away()
    caplog.clear()
    assert open_checkpoints(config, tmp_path).steps() == [10]


def test_patience_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tries, clock = list[float](), [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    def lost() -> None:
        tries.append(clock[0])
        raise StoreLostError("away")

    told = SimpleNamespace(monotonic=lambda: clock[0], sleep=sleep)
    monkeypatch.setattr("videorl.storage.patience.time", told)
    with pytest.raises(StoreLostError):
        patiently(lost, 60.0, "it")
    assert tries == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 30.5, 45.5], "15 s later it would be over"
    tries.clear()
    with pytest.raises(StoreLostError):
        patiently(lost, 0.0, "it")
    assert len(tries) == 1

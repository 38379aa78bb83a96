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
from videorl.run.checkpoints import CheckpointFolder, open_checkpoints
from videorl.run.stored import working_copy
from videorl.storage.patience import patiently
from videorl.storage.place import Place, below


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
    away: Callable[[], None], s3: str, tmp_path: Path
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


def test_whatever_is_asked_of_checkpoints_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call to the store fails the first time, but for those that only tidy up."""
    monkeypatch.setattr("videorl.storage.patience._FIRST_PAUSE_S", 0.001)
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    failed = set[tuple[object, ...]]()

    def flaky(name: str) -> Callable[..., object]:
        real = getattr(Place, name)

        def call(self: Place, *arguments: object) -> object:
            if (key := (name, *arguments)) not in failed:
                failed.add(key)
                raise StoreLostError(f"{name} is away")
            return real(self, *arguments)

        return call

    for name in ("list", "write", "upload", "download"):
        monkeypatch.setattr(Place, name, flaky(name))
    folder = CheckpointFolder(f"file://{tmp_path}/store", keep=9, patience_s=120)
    folder.check_writable()
    for step in (10, 20):
        (folder.begin(step, in_parts=True) / "optimizer.pt").write_text("whole")
        folder.add_part(step, is_whole=True)
        folder.commit(step, {"loop": {}})
    failed.clear()
    assert folder.steps() == [10, 20]
    found = CheckpointFolder(f"file://{tmp_path}/store", keep=9, patience_s=120).latest()
    assert found is not None and found[1]["step"] == 20
    failed.clear()
    folder.remove_after(10)
    assert folder.steps() == [10]


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

    def slow() -> str:
        """Goes well for an hour, and then again."""
        tries.append(clock[0])
        clock[0] += 3600
        if len(tries) == 1:
            raise StoreLostError("away")
        return "done"

    tries.clear()
    assert patiently(slow, 60.0, "it") == "done", "it was away for a moment only"

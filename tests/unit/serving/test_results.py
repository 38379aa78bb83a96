from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from videorl.config import SamplingConfig
from videorl.serving.limits import ServingLimits
from videorl.serving.requests import VideoTask
from videorl.serving.results import Results

TASK = VideoTask("a circle", SamplingConfig(num_frames=9, fps=8.0), 3, "base")
LIMITS = ServingLimits(keep_s=100, keep_mib=0.01)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_video_from_queue_to_deletion(tmp_path: Path) -> None:
    results = Results(tmp_path, LIMITS)
    record = results.create(TASK)
    assert record.answer()["status"] == "queued"
    assert results.content(record.id) is None
    results.start(record.id)
    assert record.status == "in_progress"
    results.finish(record.id, b"mp4")
    assert results.content(record.id) == b"mp4"
    answer = record.answer()
    assert (answer["progress"], answer["seconds"], answer["seed"]) == (100, "1.125", 3)
    assert answer["expires_at"] - answer["created_at"] == 100
    assert results.delete(record.id)
    assert not results.delete(record.id)
    assert [*tmp_path.iterdir()] == []


def test_results_survive_a_restart_and_what_was_not_done_has_failed(tmp_path: Path) -> None:
    first = Results(tmp_path, LIMITS)
    done, begun = first.create(TASK), first.create(TASK)
    first.finish(done.id, b"mp4")
    first.start(begun.id)
    again = Results(tmp_path, LIMITS)
    assert again.get(done.id) == done
    found = again.get(begun.id)
    assert found is not None and found.error is not None
    assert (found.status, found.error["code"]) == ("failed", "server_restarted")


def test_old_results_are_deleted_and_the_oldest_when_there_are_too_many_bytes(
    tmp_path: Path,
) -> None:
    clock = Clock()
    results = Results(tmp_path, LIMITS, clock)
    records = [results.create(TASK) for _ in range(3)]
    for record in records:
        results.finish(record.id, b"x" * 5000)
    assert [record.id for record in results.all()] == [record.id for record in records[1:]]
    waiting = results.create(TASK)
    clock.now += 101
    assert results.all() == [waiting]  # never one that is still to be made
    assert len([*tmp_path.iterdir()]) == 1


def test_nothing_outside_of_the_folder_is_reached_by_an_id(tmp_path: Path) -> None:
    outside = tmp_path / "secret.mp4"
    outside.write_bytes(b"secret")
    results = Results(tmp_path / "served", LIMITS)
    for name in ("../secret", "/etc/passwd", "video_" + "0" * 32, ""):
        assert results.get(name) is None
        assert results.content(name) is None
        assert not results.delete(name)
    assert outside.exists()


def test_a_foreign_or_damaged_record_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    record = Results(tmp_path, LIMITS).create(TASK)
    stored = json.loads((tmp_path / f"{record.id}.json").read_text())
    (tmp_path / "video_half.json").write_text('{"id": "vid')
    (tmp_path / "video_other.json").write_text(json.dumps({**stored, "id": "../../x"}))
    (tmp_path / "video_new.json").write_text(json.dumps({**stored, "colour": 1}))
    found = Results(tmp_path, replace(LIMITS, keep_s=1e9)).all()
    assert [each.id for each in found] == [record.id]
    assert "video_half.json" in caplog.text

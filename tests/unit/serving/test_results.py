from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

from videorl.config import SamplingConfig
from videorl.serving.errors import RequestError
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
    clock = Clock()
    results = Results(tmp_path, LIMITS, clock)
    record = results.create(TASK)
    assert record.answer()["status"] == "queued"
    assert results.content(record.id) is None
    results.start(record.id)
    assert record.status == "in_progress"
    clock.now += 200  # its lifetime begins when it is done
    results.finish(record.id, b"mp4")
    assert results.content(record.id) == b"mp4"
    answer = record.answer()
    assert (answer["progress"], answer["seconds"], answer["seed"]) == (100, "1.125", 3)
    assert answer["expires_at"] - answer["completed_at"] == 100
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
    for number, change in enumerate(({"created_at": "x"}, {"expires_at": "inf"}, {"status": "?"})):
        name = f"video_{number:032x}"
        text = json.dumps({**stored, "id": name, **change}).replace('"inf"', "Infinity")
        (tmp_path / f"{name}.json").write_text(text)
    found = Results(tmp_path, replace(LIMITS, keep_s=1e9)).all()
    assert [each.id for each in found] == [record.id]
    assert "video_half.json" in caplog.text


def test_what_a_crash_left_is_deleted_once_it_is_old(tmp_path: Path) -> None:
    left = f"video_{'0' * 32}"
    names = (f"{left}.mp4", f".{left}.json.partial", "holiday.mp4", "video_7.mp4")
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    clock = Clock()
    clock.now = (tmp_path / names[0]).stat().st_mtime + 99
    Results(tmp_path, LIMITS, clock)
    assert {path.name for path in tmp_path.iterdir()} == {*names}
    clock.now += 2
    Results(tmp_path, LIMITS, clock)
    assert {path.name for path in tmp_path.iterdir()} == {"holiday.mp4", "video_7.mp4"}


def test_a_full_disk_refuses_new_videos_and_fails_those_in_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path, LIMITS)
    begun, sampled = results.create(TASK), results.create(TASK)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("videorl.serving.results.write_json", full)
    with pytest.raises(RequestError, match="takes no more results") as error:
        results.create(TASK)
    assert error.value.status == 507
    results.start(begun.id)
    results.fail(begun.id, "why", "code")
    results.finish(sampled.id, b"mp4")
    assert [record.status for record in results.all()] == ["failed", "failed"]
    assert not [*tmp_path.glob("*.mp4")]

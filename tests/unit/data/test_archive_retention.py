"""Videos and latents of the oldest steps are deleted where they take too much, rows never."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.data.test_archive import best_vs_worst, group, record
from tests.unit.data.test_archive_compaction import Killed, killed_at
from videorl.config import ArchiveConfig
from videorl.data.archive import Archive, check, read_table
from videorl.data.archive_layout import read_layout
from videorl.data.archive_retention import _all_bytes, removed
from videorl.data.archive_tables import SCHEMAS
from videorl.data.video_io import read_video

MEDIA = ("video", "latents", "latents_shape", "latents_dtype")


@pytest.fixture(autouse=True)
def few_steps_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videorl.data.archive_compaction.KEPT_APART", 1)


def write(archive: Archive, steps: range) -> None:
    for step in steps:
        scored = group(step)
        archive.write(record(step, [scored], [best_vs_worst(scored)]))


def open_archive(directory: Path, keep_gb: float = 0.0, latents: bool = False) -> Archive:
    return Archive(directory, "pairs", latents, keep_gb=keep_gb, steps_per_file=3)


def rows(directory: Path) -> dict[str, list[dict[str, object]]]:
    """All rows, without media."""
    columns = {
        name: [c for c in schema.names if c not in MEDIA] for name, schema in SCHEMAS.items()
    }
    return {name: read_table(directory, name, columns[name]).to_pylist() for name in SCHEMAS}


def steps_with_videos(directory: Path) -> list[int]:
    found = read_table(directory, "candidates", ["step", "video"]).to_pylist()
    named = sorted({row["step"] for row in found if row["video"]})
    folders = sorted(int(path.name.removeprefix("step-")) for path in directory.glob("videos/*"))
    assert folders == named
    return named


def step_gb(tmp_path: Path) -> float:
    """What the two videos of step 0 take."""
    write(open_archive(tmp_path / "measured"), range(1))
    return sum(path.stat().st_size for path in (tmp_path / "measured").rglob("*.mp4")) / 1e9


def test_the_oldest_videos_go_and_all_rows_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place, free = tmp_path / "archive", tmp_path / "free"
    write(open_archive(free), range(12))
    write(open_archive(place, keep_gb=5.5 * step_gb(tmp_path)), range(12))
    kept = steps_with_videos(place)
    assert kept == list(range(kept[0], 12))
    assert 4 <= len(kept) <= 6
    assert rows(place) == rows(free)
    assert check(place, 12) == []
    counted = removed(place)
    assert (counted["videos"], counted["end"]) == (2 * kept[0], kept[0])
    lost = [path.stat().st_size for path in free.glob("videos/*/*") if _step(path) < kept[0]]
    assert counted["bytes"] == sum(lost)
    assert caplog.text.count("videos and 0 latents of steps") >= 2
    assert removed(free) == {}
    for pair in read_table(place, "pairs").to_pylist()[kept[0] :]:
        for name in (pair["chosen_id"], pair["rejected_id"]):
            (path,) = place.glob(f"videos/*/{name}.mp4")
            assert read_video(path).frames.shape[0] == 9


def _step(video: Path) -> int:
    return int(video.parent.name.removeprefix("step-"))


def test_latents_go_with_the_videos_of_their_step(tmp_path: Path) -> None:
    place = tmp_path / "archive"
    write(open_archive(place, latents=True), range(9))
    archive = open_archive(place, keep_gb=4 * step_gb(tmp_path), latents=True)
    write(archive, range(9, 10))
    kept = steps_with_videos(place)
    shapes = read_table(place, "candidates", ["step", "latents_shape", "latents"]).to_pylist()
    assert sorted({row["step"] for row in shapes if row["latents_shape"]}) == kept
    assert sorted({row["step"] for row in shapes if row["latents"]}) == kept
    assert removed(place)["latents"] == 2 * kept[0]
    for span in read_layout(place).spans:
        assert pq.read_schema(span.path(place, "candidates")).equals(SCHEMAS["candidates"])


def test_of_merged_steps_those_without_latents_take_nothing(tmp_path: Path) -> None:
    place = tmp_path / "archive"
    write(Archive(place, "none", False, steps_per_file=6), range(4))
    write(Archive(place, "none", True, steps_per_file=6), range(4, 8))
    assert next(span.name for span in read_layout(place).spans) == "steps-000000-000005"
    found = _all_bytes(place)
    assert [found[step] for step in range(4)] == [0] * 4
    assert found[4] == found[5] > 0


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), pa.ArrowInvalid("torn")])
def test_what_cannot_be_merged_does_not_keep_the_disk_full(
    fault: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def merge(*_: object) -> None:
        raise fault

    monkeypatch.setattr("videorl.data.archive_upkeep.merge", merge)
    write(open_archive(tmp_path, keep_gb=1e-9), range(6))
    assert steps_with_videos(tmp_path) == [5]
    assert "could not be merged or thinned out" in caplog.text


def test_the_newest_step_keeps_its_media_however_many_they_are(tmp_path: Path) -> None:
    write(open_archive(tmp_path, keep_gb=1e-9), range(3))
    assert steps_with_videos(tmp_path) == [2]


def test_a_run_that_went_back_counts_anew(tmp_path: Path) -> None:
    place = tmp_path / "archive"
    archive = open_archive(place, keep_gb=5.5 * step_gb(tmp_path))
    write(archive, range(5))
    archive.truncate(2)
    write(archive, range(2, 5))
    assert steps_with_videos(place) == [0, 1, 2, 3, 4]
    assert removed(place) == {}


def test_a_writer_that_is_killed_anywhere_leaves_rows_and_names_no_lost_video(
    tmp_path: Path,
) -> None:
    start, work = tmp_path / "start", tmp_path / "work"
    write(open_archive(start), range(6))
    before, keep_gb = rows(start), 2.5 * step_gb(tmp_path)

    def thin_out(place: Path) -> None:
        open_archive(place, keep_gb)._upkeep.after(5)

    shutil.copytree(start, work)
    with killed_at(float("inf")) as done:
        thin_out(work)
    kept = steps_with_videos(work)
    for number in range(len(done)):
        shutil.rmtree(work)
        shutil.copytree(start, work)
        with pytest.raises(Killed), killed_at(number):
            thin_out(work)
        assert rows(work) == before, number
        assert check(work, 6) == [], "no row names a video that is gone"
        thin_out(work)
        assert steps_with_videos(work) == kept, number


def test_media_of_every_so_many_steps(tmp_path: Path) -> None:
    write(Archive(tmp_path, "pairs", keep_latents=True, every=3), range(5))
    assert steps_with_videos(tmp_path) == [0, 3]
    shapes = read_table(tmp_path, "candidates", ["step", "latents_shape"]).to_pylist()
    assert {row["step"] for row in shapes if row["latents_shape"]} == {0, 3}
    assert read_table(tmp_path, "pairs").num_rows == 5
    assert check(tmp_path, 5) == []


def test_what_the_archive_does_not_keep_is_not_even_encoded() -> None:
    config = ArchiveConfig(videos="all", latents=True, every=3)
    kept = [step for step in range(5) if config.keeps(step, is_learned=True).video]
    assert kept == [step for step in range(5) if config.keeps(step, is_learned=False).latents]
    assert kept == [0, 3]

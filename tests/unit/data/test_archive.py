import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import torch

from videorl.data.archive import Archive, check, committed_steps, read, read_table, video_path
from videorl.data.archive_tables import CANDIDATES, PAIRS, SCHEMAS, SCORES, unpack_latents
from videorl.data.clips import find_clips
from videorl.data.video_io import read_video
from videorl.errors import ArchiveError, MediaLostError
from videorl.types import (
    Candidate,
    PreferencePair,
    Prompt,
    PromptOutcome,
    Score,
    ScoredCandidate,
    ScoredGroup,
    StepRecord,
    Video,
    WeightVersion,
)


def group(step: int, index: int = 0, dropped: dict[str, int] | None = None) -> ScoredGroup:
    """Three candidates of one prompt with totals 0, 1, 2."""
    prompt = Prompt(10 * step + index, f"a red ball, «{step}»")
    rng = np.random.default_rng(step)
    scored = [
        ScoredCandidate(
            Candidate(
                step,
                prompt,
                g,
                seed=2**63 - 1 - g,
                version=WeightVersion(step, "abc"),
                latents=torch.arange(24.0).view(2, 3, 2, 2).to(torch.bfloat16) + g,
                video=Video(rng.integers(0, 256, (9, 32, 32, 3), dtype=np.uint8), 8.0),
            ),
            Score({"visual_quality": 0.25 * g, "text_alignment": 0.75 * g}, float(g)),
            {"dynamic_degree": 0.5},
        )
        for g in range(3)
    ]
    return ScoredGroup(prompt, None, tuple(scored), dropped or {})


def best_vs_worst(group: ScoredGroup) -> PreferencePair:
    return PreferencePair(group.prompt, None, group.candidates[2], group.candidates[0], 2.0)


def record(
    step: int, groups: list[ScoredGroup], pairs: list[PreferencePair] | None = None
) -> StepRecord:
    """A step of these groups, and one more prompt that was lost."""
    prompt = Prompt(10 * step + 9, "too long", "mine", ("a", "b"))
    lost = PromptOutcome(prompt, "prompt_rejected", "99 tokens")
    outcomes = *(PromptOutcome(group.prompt, "trained") for group in groups), lost
    version = WeightVersion(step, "abc")
    published = WeightVersion(step + 1, "abd")
    return StepRecord(
        step, outcomes, tuple(groups), tuple(pairs or ()), version, published, version
    )


def write(directory: Path, step: int, videos: str = "pairs", **options: Any) -> None:
    archive = Archive(directory, videos, keep_latents=True, **options)
    scored = group(step)
    archive.write(record(step, [scored], [best_vs_worst(scored)]))


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    for step in (0, 1):
        write(tmp_path, step)
    candidates, scores, pairs = read(tmp_path)
    assert (candidates.schema, scores.schema, pairs.schema) == (CANDIDATES, SCORES, PAIRS)
    row = candidates.to_pylist()[5]
    assert row["candidate_id"] == "r000001-p000010-c02"
    assert row["seed"] == 2**63 - 3
    assert (row["step"], row["round"], row["prompt_index"], row["candidate_index"]) == (1, 1, 10, 2)
    assert (row["prompt"], row["total"]) == ("a red ball, «1»", 2.0)
    assert (row["version_step"], row["version_digest"]) == (1, "abc")
    assert row["video"] == "videos/step-000001/r000001-p000010-c02.mp4"
    assert read_video(tmp_path / row["video"]).frames.shape == (9, 32, 32, 3)
    assert torch.equal(unpack_latents(row), group(1).candidates[2].candidate.latents)
    assert scores.num_rows == 2 * 3 * 3
    of_row = [score for score in scores.to_pylist() if score["candidate_id"] == row["candidate_id"]]
    assert {(score["kind"], score["dimension"], score["value"]) for score in of_row} == {
        ("reward", "visual_quality", 0.5),
        ("reward", "text_alignment", 1.5),
        ("unseen", "dynamic_degree", 0.5),
    }
    assert pairs.to_pylist()[1] == {
        "step": 1,
        "prompt_index": 10,
        "chosen_id": "r000001-p000010-c02",
        "rejected_id": "r000001-p000010-c00",
        "margin": 2.0,
    }
    assert read_table(tmp_path, "prompts").to_pylist()[2:] == [
        {"step": 1, "prompt_index": 10, "prompt": "a red ball, «1»", "outcome": "trained"}
        | {"error": None, "prompt_id": None, "tags": None, "image": None},
        {"step": 1, "prompt_index": 19, "prompt": "too long", "outcome": "prompt_rejected"}
        | {"error": "99 tokens", "prompt_id": "mine", "tags": ["a", "b"], "image": None},
    ]
    assert read_table(tmp_path, "steps").to_pylist()[1] == {
        "step": 1,
        "sampled_step": 1,
        "sampled_digest": "abc",
        "published_step": 2,
        "published_digest": "abd",
        "reference_step": 1,
        "reference_digest": "abc",
    }
    assert check(tmp_path, 2) == []


@pytest.mark.parametrize(("keep", "videos"), [("all", 3), ("pairs", 2), ("none", 0)])
def test_videos_kept(tmp_path: Path, keep: str, videos: int) -> None:
    write(tmp_path, 0, keep)
    assert len(list(tmp_path.glob("videos/step-000000/*.mp4"))) == videos
    candidates = read_table(tmp_path, "candidates", ["video", "latents_shape"])
    assert candidates["video"].null_count == 3 - videos
    assert candidates["latents_shape"].null_count == (0 if keep == "all" else 1)
    assert check(tmp_path, 1) == []


def test_a_step_without_pairs_or_candidates_writes_all_tables(tmp_path: Path) -> None:
    lost = ScoredGroup(Prompt(7, "x"), None, (), {"score_not_finite": 4})
    Archive(tmp_path, "pairs", keep_latents=False).write(record(0, [lost]))
    assert [table.num_rows for table in read(tmp_path)] == [0, 0, 0]
    assert read_table(tmp_path, "dropped").to_pylist() == [
        {"step": 0, "prompt_index": 7, "reason": "score_not_finite", "count": 4}
    ]
    assert check(tmp_path, 1) == []


def test_each_table_is_a_plain_parquet_dataset(tmp_path: Path) -> None:
    write(tmp_path, 0)
    write(tmp_path, 1)
    for name in SCHEMAS:
        assert ds.dataset(tmp_path / name).to_table().equals(read_table(tmp_path, name))


def test_steps_stay_in_order_beyond_six_digits(tmp_path: Path) -> None:
    for step in (1_000_000, 999_999):
        write(tmp_path, step, "none")
    assert read(tmp_path)[2]["step"].to_pylist() == [999_999, 1_000_000]


def test_an_empty_archive_reads_as_empty_tables(tmp_path: Path) -> None:
    assert [table.num_rows for table in read(tmp_path / "none")] == [0, 0, 0]
    assert check(tmp_path / "none", 0) == []


def test_writing_a_step_again_replaces_it(tmp_path: Path) -> None:
    write(tmp_path, 0)
    before = files(tmp_path)
    write(tmp_path, 0)
    assert files(tmp_path) == before
    write(tmp_path, 0, "none")
    assert not list(tmp_path.glob("videos/*"))
    assert read(tmp_path)[0].num_rows == 3


def test_truncate_leaves_what_a_shorter_run_would_have_written(tmp_path: Path) -> None:
    for step in range(4):
        write(tmp_path / "long", step)
        (tmp_path / "long" / f".partial-step-{step:06d}").mkdir()
        if step < 2:
            write(tmp_path / "short", step)
    archive = Archive(tmp_path / "long", "pairs", keep_latents=True)
    archive.truncate(2)
    assert files(tmp_path / "long") == files(tmp_path / "short")
    assert not list((tmp_path / "long").glob(".partial*"))
    assert not (tmp_path / "long" / "videos" / "step-000002").exists()
    assert committed_steps(tmp_path / "long") == [0, 1]
    archive.truncate(0)
    assert files(tmp_path / "long") == {}


# A step is renamed into place in this order; the process may die after any of them.
ORDER = ("videos", *SCHEMAS)


@pytest.mark.parametrize("done", range(len(ORDER)))
def test_a_crash_while_committing_leaves_nothing_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    class Killed(BaseException):
        pass

    write(tmp_path, 0)
    tables, real = read(tmp_path), os.replace
    moved: list[Path] = []

    def replace(source: Path, target: Path) -> None:
        if len(moved) == done:
            raise Killed
        moved.append(target)
        real(source, target)

    monkeypatch.setattr("videorl.data.archive.os.replace", replace)
    with pytest.raises(Killed):
        write(tmp_path, 1)
    monkeypatch.undo()
    names = [path.name if path.parent.name == "videos" else path.parent.name for path in moved]
    assert [name.replace("step-000001", "videos") for name in names] == list(ORDER[:done])
    assert all(now.equals(then) for now, then in zip(read(tmp_path), tables, strict=True))
    Archive(tmp_path, "pairs", keep_latents=True).truncate(1)
    write(tmp_path, 1)
    assert check(tmp_path, 2) == []


FILL = """
import resource, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from tests.unit.data.test_archive import write
from videorl.errors import ArchiveError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    write(Path({directory!r}), 1, {keep!r})
except ArchiveError as error:
    print(error.errno, error)
"""


@pytest.mark.parametrize(("limit", "keep"), [(200, "pairs"), (2000, "none")])
def test_a_disk_that_takes_no_more_leaves_no_half_written_step(
    tmp_path: Path, limit: int, keep: str
) -> None:
    """A file size limit of the process fails writes midway, in a video or in a table."""
    root = Path(__file__).parents[3]
    write(tmp_path, 0)
    before = files(tmp_path)
    code = FILL.format(root=str(root), directory=str(tmp_path), limit=limit, keep=keep)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=900, check=False
    )
    assert "step 1 could not be written to the archive" in ran.stdout, ran.stderr
    assert ran.stdout.startswith("27 ")  # EFBIG
    assert files(tmp_path) == before
    assert not list(tmp_path.glob(".partial*"))


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    """On a real file system of 64 KiB, where mounting one is allowed."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"mounting a tmpfs is not allowed here: {error}")
    try:
        with pytest.raises(ArchiveError, match="No space left on device"):
            for step in range(20):
                write(disk, step, "all")
        assert committed_steps(disk)
        assert check(disk, len(committed_steps(disk))) == []
    finally:
        # Lazily: another process that looks through the temporary folder would make it busy.
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_check_names_holes_duplicates_and_losses(tmp_path: Path) -> None:
    for step in (0, 1, 3):
        write(tmp_path, step)
    assert check(tmp_path, 4) == ["step 2 is missing"]
    assert check(tmp_path, 3) == ["step 2 is missing", "step 3 is beyond the last one, 2"]
    Archive(tmp_path, "pairs", keep_latents=False).write(record(2, [group(1)]))
    assert check(tmp_path, 4) == [f"r000001-p000010-c{g:02d} is there 2 times" for g in range(3)]
    write(tmp_path, 2)
    next(tmp_path.glob("videos/step-000003/*-c02.mp4")).unlink()
    assert check(tmp_path, 4) == ["videos/step-000003/r000003-p000030-c02.mp4 is missing"]
    (tmp_path / "scores" / "step-000003.parquet").unlink()
    assert check(tmp_path, 4) == ["step 3 has no scores file"]
    with pytest.raises(ArchiveError, match=r"scores.step-000003\.parquet is missing"):
        read(tmp_path)


def test_only_what_is_kept_is_fetched_and_a_lost_video_costs_only_itself(tmp_path: Path) -> None:
    scored = group(0)
    best, worst = scored.candidates[2].candidate, scored.candidates[0].candidate
    asked: list[Any] = []

    def fetch(handles: list[Any]) -> list[Any]:
        asked.extend(handles)
        if handles[0] is best.video:
            raise MediaLostError("the node is gone")
        return handles

    archive = Archive(tmp_path, "pairs", keep_latents=False, fetch=fetch)
    archive.write(record(0, [scored], [best_vs_worst(scored)]))
    assert asked == [worst.video, best.video]
    assert [path is None for path in read(tmp_path)[0]["video"].to_pylist()] == [False, True, True]
    assert check(tmp_path, 1) == []


def test_the_writer_does_not_import_torch() -> None:
    code = "import sys, videorl.data.archive; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("recorded", ["../outside.mp4", "/etc/hostname", "videos/link/a.mp4"])
def test_a_table_cannot_name_a_video_outside_of_the_archive(tmp_path: Path, recorded: str) -> None:
    directory = tmp_path / "archive"
    (directory / "videos").mkdir(parents=True)
    (directory / "videos/link").symlink_to(tmp_path)
    (tmp_path / "outside.mp4").touch()
    with pytest.raises(ArchiveError, match="names a video outside of it"):
        video_path(directory, recorded)
    assert video_path(directory, "videos/a.mp4") == directory / "videos/a.mp4"


def test_a_table_without_the_columns_of_newer_versions_is_read(tmp_path: Path) -> None:
    write(tmp_path, 0)
    path = tmp_path / "prompts/step-000000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["prompt_id", "tags"]), path)
    rows = read_table(tmp_path, "prompts").to_pylist()
    assert [row["prompt_index"] for row in rows] == [0, 9]
    assert all(row["prompt_id"] is None and row["tags"] is None for row in rows)


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_tables_that_another_program_wrote_again_are_read(kind: str, tmp_path: Path) -> None:
    for step in (0, 1):
        write(tmp_path, step)
    expected = read(tmp_path)
    for path in tmp_path.glob("*/step-000000.parquet"):
        table = pq.read_table(path)
        for place, field in enumerate(table.schema):
            if str(field.type) == "string":
                column = table[field.name]
                column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
                table = table.set_column(place, field.name, column)
        pq.write_table(table, path)
    assert read(tmp_path) == expected
    assert check(tmp_path, 2) == []
    assert len(find_clips(tmp_path).keys) == len(list(tmp_path.glob("videos/*/*.mp4")))


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    write(tmp_path, 0)
    path = tmp_path / "scores/step-000000.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArchiveError, match=r"a scores file of .* cannot be read: .*step-000000"):
        read_table(tmp_path, "scores")

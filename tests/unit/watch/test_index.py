"""Groups of an archive: found by every filter, page by page, whatever became of its files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.watched_runs import make_run, write_step
from videorl.data.archive import Archive
from videorl.watch.filters import ORDERS, Filter
from videorl.watch.groups import read_groups
from videorl.watch.index import Index, Key

STEPS = 4


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Four steps of three groups and a refused prompt each: sixteen groups."""
    return make_run(tmp_path / "run", STEPS, num_frames=2) / "archive"


def index_of(archive: Path) -> Index:
    index = Index(archive)
    assert index.refresh() == 0
    return index


def found(index: Index, **wanted: object) -> list[tuple[int, int]]:
    asked = Filter(**wanted)  # pyright: ignore[reportArgumentType]
    keys = index.page(asked, 0, 100)
    assert len(keys) == index.count(asked)
    return [(key.step, key.prompt_index) for key in keys]


def test_each_filter_finds_what_was_written(archive: Path) -> None:
    index = index_of(archive)
    assert found(index)[:5] == [(3, 12), (3, 13), (3, 14), (3, 15), (2, 8)]
    assert found(index, first_step=1, last_step=2, text="RED") == [(2, 8), (1, 4)]
    assert found(index, text="100 %") == [(3, 14), (2, 10), (1, 6), (0, 2)]
    assert not found(index, text="1_0")
    assert found(index, least_margin=0.3, most_margin=0.6) == [(3, 13), (2, 9), (1, 5), (0, 1)]
    assert found(index, reason="prompt_rejected", last_step=0) == [(0, 3)]
    assert found(index, reason="score_not_finite", last_step=0) == [(0, 2)]
    assert found(index, dimension="quality", at_least=3.3) == [(3, 13), (3, 14)]
    assert found(index, dimension="quality", at_most=0.0) == [(0, 0), (0, 1), (0, 2)]
    assert len(found(index, dimension="sharpness")) == 12
    assert not found(index, dimension="no such")
    assert index.reasons() == ["prompt_rejected", "score_not_finite", "trained"]
    assert index.dimensions() == [
        ("reward", "motion"),
        ("reward", "quality"),
        ("unseen", "sharpness"),
    ]


def test_without_a_dimension_a_bound_is_one_of_the_total(archive: Path) -> None:
    index = index_of(archive)
    assert found(index, at_least=3.3) == [(3, 13), (3, 14)]
    assert found(index, at_most=0.0) == [(0, 0), (0, 1), (0, 2)]


def test_a_reward_and_an_unseen_metric_may_share_a_name(tmp_path: Path) -> None:
    """Unseen `quality` is 10 for every candidate, the reward's is at most 0.75."""
    archive = make_run(tmp_path / "run", 1, num_frames=2, unseen={"quality": 10.0}) / "archive"
    index = index_of(archive)
    assert index.dimensions() == [
        ("reward", "motion"),
        ("reward", "quality"),
        ("unseen", "quality"),
    ]
    assert len(found(index, dimension="quality", kind="unseen", at_least=9.0)) == 3
    assert not found(index, dimension="quality", kind="reward", at_least=9.0)
    assert found(index, dimension="quality", kind="reward", at_least=0.75) == [(0, 2)]


def test_scores_that_are_not_finite_are_above_and_below_nothing(tmp_path: Path) -> None:
    archive = make_run(tmp_path / "run", 1, num_frames=2, unseen={"blur": math.nan}) / "archive"
    index = index_of(archive)
    assert not found(index, dimension="blur", at_least=0.0)
    assert not found(index, dimension="blur", at_most=0.0)


@pytest.mark.parametrize("name", ["lr[0.1]", "a*", "what?", "x[!y]", "it's", "{a,b}"])
def test_a_folder_may_be_named_like_a_pattern(tmp_path: Path, name: str) -> None:
    """Beside a run whose name the pattern would match."""
    for other in ("lr0", "ab", "whats", "xz", "its", "a"):
        make_run(tmp_path / other, 1, num_frames=2, shift=50.0)
    archive = make_run(tmp_path / name, 1, num_frames=2) / "archive"
    index = index_of(archive)
    assert not index.problems
    assert len(found(index)) == 4
    assert read_groups(archive, index, [Key(0, 1)])[0].candidates[0].total == 0.0


def test_orders(archive: Path) -> None:
    index = index_of(archive)
    assert found(index, order="oldest")[:2] == [(0, 0), (0, 1)]
    assert found(index, order="largest margin")[:2] == [(3, 14), (2, 10)]
    assert found(index, order="smallest margin")[0] == (3, 12)
    assert found(index, order="best candidate")[0] == (3, 14)
    assert found(index, order="worst candidate")[0] == (0, 0)
    for order in ORDERS:
        assert len(set(found(index, order=order))) == 16


def test_pages_cover_everything_once_and_newest_steps_come_first(archive: Path) -> None:
    index = Index(archive)
    assert index.refresh(most=1) == STEPS - 1
    assert {step for step, _ in found(index)} == {3}
    index.refresh()
    pages = [index.page(Filter(), number, 5) for number in range(4)]
    assert [len(page) for page in pages] == [5, 5, 5, 1]
    assert len({key for page in pages for key in page}) == 16


def test_a_run_that_goes_on_or_back_is_followed(archive: Path) -> None:
    index = index_of(archive)
    write_step(archive.parent, 4, num_frames=2)
    index.refresh()
    assert len(found(index)) == 20
    Archive(archive, "pairs", keep_latents=False).truncate(2)
    index.refresh()
    assert {step for step, _ in found(index)} == {0, 1}
    write_step(archive.parent, 1, num_frames=2, shift=100.0)
    index.refresh()
    assert found(index, dimension="quality", at_least=100.0) == [(1, 4), (1, 5), (1, 6)]


def test_a_group_is_what_was_written(archive: Path) -> None:
    index = index_of(archive)
    lost, green = read_groups(archive, index, [Key(3, 15), Key(3, 14)])
    assert (lost.outcome, lost.error, lost.candidates) == ("prompt_rejected", "99 <tokens>", [])
    assert (green.prompt, green.outcome) == ("a 100 % green ball", "trained")
    assert green.dropped == {"score_not_finite": 1}
    assert [c.role for c in green.candidates] == ["rejected", "", "chosen"]
    assert [c.video is not None for c in green.candidates] == [True, False, True]
    assert green.candidates[2].scores["reward", "quality"] == 3.75
    assert green.candidates[2].scores["unseen", "sharpness"] == 0.5
    chosen, rejected, margin = green.pairs[0]
    assert (chosen, rejected) == (green.candidates[2].id, green.candidates[0].id)
    assert margin == 0.75


def test_a_video_that_is_missing_is_said(archive: Path) -> None:
    index = index_of(archive)
    (archive / "videos/step-000003/r000003-p000014-c02.mp4").unlink()
    group = read_groups(archive, index, [Key(3, 14)])[0]
    assert [candidate.is_missing for candidate in group.candidates] == [False, False, True]


def test_a_damaged_file_costs_itself_alone_and_is_named(archive: Path) -> None:
    for name in ("pairs/step-000001.parquet", "candidates/step-000002.parquet"):
        path = archive / name
        path.write_bytes(path.read_bytes()[:-20])
    index = index_of(archive)
    assert sorted(Path(file).relative_to(archive).as_posix() for file in index.problems) == [
        "candidates/step-000002.parquet",
        "pairs/step-000001.parquet",
    ]
    assert len(found(index)) == 16
    assert not found(index, least_margin=0.0, first_step=1, last_step=1)
    assert len(found(index, least_margin=0.0)) == 9
    unpaired, nothing = read_groups(archive, index, [Key(1, 5), Key(2, 9)])
    assert len(unpaired.candidates) == 3
    assert not unpaired.pairs
    assert (nothing.prompt, nothing.candidates) == ("a blue ball", [])
    # Mended, as by a resumed run, it is read again.
    write_step(archive.parent, 2, num_frames=2)
    index.refresh()
    assert len(index.problems) == 1


def test_a_file_that_was_just_being_copied_is_read_when_it_is_whole(archive: Path) -> None:
    path = archive / "scores/step-000001.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    index = index_of(archive)
    assert list(index.problems) == [str(path)]
    path.write_bytes(content)
    before = index.version
    index.refresh()
    assert not index.problems
    assert index.version > before
    assert len(found(index, dimension="quality")) == 12


def test_a_folder_without_changes_is_not_looked_through_again(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(archive / "candidates", (1e9, 1e9))
    index = index_of(archive)
    monkeypatch.setattr(index, "_committed", None)
    assert index.refresh() == 0
    monkeypatch.undo()
    write_step(archive.parent, STEPS, num_frames=2)
    index.refresh()
    assert len(found(index)) == 20


def rewrite(path: Path, change: object) -> None:
    table = pq.read_table(path)
    path.unlink()
    pq.write_table(change(table), path)  # pyright: ignore


def test_archives_of_older_and_newer_versions(archive: Path) -> None:
    for step in range(STEPS):
        (archive / f"prompts/step-{step:06d}.parquet").unlink()
        path = archive / f"candidates/step-{step:06d}.parquet"
        rewrite(path, lambda table: table.drop_columns(["weight", "image", "video"]))
    rewrite(
        archive / "pairs/step-000000.parquet",
        lambda table: table.append_column("colour", pa.array(["x"] * len(table))),
    )
    index = index_of(archive)
    assert not index.problems
    assert len(found(index)) == 12
    group = read_groups(archive, index, [Key(0, 1)])[0]
    assert (group.prompt, group.outcome, group.candidates[0].video) == ("a blue ball", "", None)
    assert len(found(index, least_margin=0.0)) == 12


def test_a_column_that_every_version_has_is_missed(archive: Path) -> None:
    rewrite(archive / "pairs/step-000000.parquet", lambda table: table.drop_columns(["margin"]))
    index = index_of(archive)
    (problem,) = index.problems.items()
    assert problem[0].endswith("pairs/step-000000.parquet")
    assert "margin" in problem[1]
    assert len(found(index, least_margin=0.0)) == 9


def test_no_archive_yet(tmp_path: Path) -> None:
    index = index_of(tmp_path / "archive")
    assert found(index) == []
    assert read_groups(tmp_path / "archive", index, []) == []

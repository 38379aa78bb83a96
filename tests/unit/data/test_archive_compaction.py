"""Steps that are merged into files of many, at any moment of which a writer may die."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from tests.unit.data.test_archive import best_vs_worst, files, group, record
from videorl.data.archive import Archive, check, committed_steps, read_table
from videorl.data.archive_compaction import next_merge
from videorl.data.archive_layout import Layout, Span, layout_of, read_layout, span_of
from videorl.data.archive_tables import SCHEMAS, unpack_latents
from videorl.data.clips import find_clips
from videorl.data.preferences import read_preferences
from videorl.errors import ArchiveError
from videorl.watch.filters import Filter
from videorl.watch.groups import read_groups
from videorl.watch.index import Index

SIZE = 2
APART = 1
FULL = SIZE + APART
"""Steps after which the first partition is made."""
OPERATIONS = ("replace", "unlink", "rmdir", "mkdir", "fsync")


@pytest.fixture(autouse=True)
def few_steps_stay_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that these tests need few steps."""
    monkeypatch.setattr("videorl.data.archive_compaction.KEPT_APART", APART)


class Killed(BaseException):
    """The process ends here, and does nothing more."""


def archive_of(directory: Path, **options: Any) -> Archive:
    settings: dict[str, Any] = {"steps_per_file": SIZE, **options}
    return Archive(directory, settings.pop("videos", "none"), keep_latents=False, **settings)


def write(archive: Archive, steps: range) -> None:
    for step in steps:
        scored = group(step)
        archive.write(record(step, [scored], [best_vs_worst(scored)]))


def rows(directory: Path) -> dict[str, list[dict[str, Any]]]:
    return {name: read_table(directory, name).to_pylist() for name in SCHEMAS}


def names(directory: Path, table: str = "candidates") -> list[str]:
    return sorted(path.stem for path in (directory / table).iterdir())


@contextmanager
def killed_at(number: float) -> Iterator[list[str]]:
    """Let `number` operations on files happen inside the block, then none."""
    done: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def operation(*arguments: Any, **options: Any) -> Any:
            if len(done) >= number:
                raise Killed
            done.append(name)
            return real(*arguments, **options)

        return operation

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, counted(name))
        yield done


def killed_everywhere(
    start: Path, work: Path, change: Callable[[Path], None]
) -> Iterator[tuple[Path, int]]:
    """Yield the archive as `change` leaves it that is killed after 0, 1, … operations."""
    place = work / "archive"
    shutil.copytree(start, place)
    with killed_at(float("inf")) as done:
        change(place)
    assert len(done) > 20
    for number in range(len(done)):
        shutil.rmtree(work)
        shutil.copytree(start, place)
        with pytest.raises(Killed), killed_at(number):
            change(place)
        yield place, number


def test_names_of_files_say_their_steps() -> None:
    assert span_of("step-000012.parquet") == Span(12, 12)
    assert span_of("steps-000000-000099.parquet") == Span(0, 99)
    for name in ("step-12.parquet", "steps-000005-000005.parquet", "steps-000009-000001.parquet"):
        assert span_of(name) is None
    assert span_of(Span(10**6, 10**6 + 5).name + ".parquet") == Span(10**6, 10**6 + 5)


def test_of_files_that_name_a_step_the_wider_counts() -> None:
    layout = layout_of({Span(0, 2), Span(1, 1), Span(0, 1), Span(3, 3), Span(7, 7)})
    assert layout.spans == (Span(0, 2), Span(3, 3), Span(7, 7))
    assert layout.steps() == [0, 1, 2, 3, 7]
    assert layout.span(1) == Span(0, 2)
    assert (layout.has(5), layout.span(5)) == (False, Span(5, 5))
    assert not layout_of(set()).has(0)
    with pytest.raises(ArchiveError, match=r"candidates/steps-000000-000002.*step 2"):
        layout_of({Span(0, 2), Span(2, 4)}, "here")


def test_steps_are_merged_when_no_one_may_write_them_again(tmp_path: Path) -> None:
    archive = archive_of(tmp_path)
    write(archive, range(FULL - 1))
    assert names(tmp_path)[0] == "step-000000"
    before = rows(tmp_path)
    write(archive, range(FULL - 1, FULL))
    for table in SCHEMAS:
        assert names(tmp_path, table)[-1] == "steps-000000-000001"
        assert len(names(tmp_path, table)) == FULL - SIZE + 1
    after = rows(tmp_path)
    assert {name: found[: len(before[name])] for name, found in after.items()} == before
    assert committed_steps(tmp_path) == list(range(FULL))
    assert check(tmp_path, FULL) == []
    for name in SCHEMAS:
        plain = ds.dataset(tmp_path / name).to_table().sort_by("step")
        assert plain.num_rows == len(after[name]), "any Parquet reader sees each row once"
    assert not list(tmp_path.glob(".partial*"))


def test_some_steps_of_a_partition_are_read_alone(tmp_path: Path) -> None:
    write(archive_of(tmp_path), range(FULL))
    found = read_table(tmp_path, "steps", ["published_step"], [1, 2])
    assert found.to_pydict() == {"published_step": [2, 3]}


@pytest.mark.parametrize("step", [FULL - 1, FULL])
def test_a_writer_that_is_killed_anywhere_loses_and_doubles_nothing(
    step: int, tmp_path: Path
) -> None:
    """While it writes a step alone, and while it merges two after it."""
    start, work = tmp_path / "start", tmp_path / "work"
    write(archive_of(start), range(step))
    write(archive_of(tmp_path / "whole"), range(step + 1))
    before, whole = rows(start), rows(tmp_path / "whole")
    seen: set[int] = set()
    for place, number in killed_everywhere(
        start, work, lambda place: write(archive_of(place), range(step, step + 1))
    ):
        num_steps = len(committed_steps(place))
        seen.add(num_steps)
        assert rows(place) == (whole if num_steps > step else before), number
        archive = archive_of(place)
        archive.truncate(step)
        write(archive, range(step, step + 1))
        assert files(place).keys() == files(tmp_path / "whole").keys(), number
        assert rows(place) == whole
    assert seen == {step, step + 1}


def test_the_next_merge_clears_what_a_killed_writer_left(tmp_path: Path) -> None:
    """A writer that Ray starts again goes on without a truncation."""
    start, work = tmp_path / "start", tmp_path / "work"
    write(archive_of(start), range(FULL - 1))
    write(archive_of(tmp_path / "whole"), range(FULL + SIZE))
    for place, number in killed_everywhere(
        start, work, lambda place: write(archive_of(place), range(FULL - 1, FULL))
    ):
        if number % 5:  # some of them are enough
            continue
        write(archive_of(place), range(FULL - 1, FULL + SIZE))
        assert rows(place) == rows(tmp_path / "whole"), number
        assert files(place).keys() == files(tmp_path / "whole").keys(), number


def test_a_truncation_that_is_killed_anywhere_goes_on(tmp_path: Path) -> None:
    """In the middle of a partition: what is cut off is in `superseded/`, each step in one place."""
    start, work, cut = tmp_path / "start", tmp_path / "work", 3
    write(archive_of(start), range(2 * SIZE + APART))
    everything = rows(start)
    expected = {n: [row for row in r if row["step"] < cut] for n, r in everything.items()}
    for place, number in killed_everywhere(
        start, work, lambda place: archive_of(place).truncate(cut)
    ):
        steps = committed_steps(place)
        assert steps == list(range(len(steps))), "no hole"
        assert len(steps) >= cut
        kept = work / "superseded/archive"
        assert not set(steps) & set(committed_steps(kept))
        assert read_table(place, "steps")["step"].to_pylist() == steps, number
        archive_of(place).truncate(cut)
        assert rows(place) == expected, number
        assert names(place) == ["step-000002", "steps-000000-000001"]
        lost = {n: [row for row in r if row["step"] >= cut] for n, r in everything.items()}
        assert rows(kept) == lost, number


def test_a_run_that_went_back_merges_again(tmp_path: Path) -> None:
    place = tmp_path / "archive"
    archive = archive_of(place)
    write(archive, range(FULL))
    archive.truncate(1)
    assert names(place) == ["step-000000"]
    write(archive, range(1, FULL))
    write(archive_of(tmp_path / "straight"), range(FULL))
    assert rows(place) == rows(tmp_path / "straight")
    assert names(place) == names(tmp_path / "straight")


def test_a_step_of_a_partition_may_be_written_again(tmp_path: Path) -> None:
    archive = archive_of(tmp_path)
    write(archive, range(FULL))
    archive.write(record(1, []))
    assert check(tmp_path, FULL) == []
    assert set(read_table(tmp_path, "candidates")["step"].to_pylist()) == {0, 2}


def test_an_archive_of_an_older_version_is_merged_as_its_run_goes_on(tmp_path: Path) -> None:
    write(archive_of(tmp_path, steps_per_file=10**6), range(10))
    before = rows(tmp_path)
    archive = archive_of(tmp_path)
    write(archive, range(10, 13))
    assert rows(tmp_path)["candidates"][: len(before["candidates"])] == before["candidates"]
    assert [len(span.steps) for span in read_layout(tmp_path).spans] == [SIZE] * 3 + [1] * 7


def test_files_that_are_damaged_or_incomplete_are_left_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = archive_of(tmp_path)
    write(archive, range(FULL - 1))
    (tmp_path / "scores/step-000001.parquet").unlink()
    write(archive, range(FULL - 1, FULL + SIZE - 1))
    assert len(read_layout(tmp_path).spans) == FULL + SIZE - 1
    damaged = tmp_path / "pairs/step-000003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    write(archive, range(FULL + SIZE - 1, FULL + 2 * SIZE))
    assert caplog.text.count("could not be merged") == 1
    assert [span for span in read_layout(tmp_path).spans if span.is_partition] == [Span(4, 5)]
    with pytest.raises(ArchiveError, match="step-000003"):
        read_table(tmp_path, "pairs")


def test_partitions_are_bounded_by_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(archive_of(tmp_path, steps_per_file=100), range(20))
    size = (tmp_path / "candidates/step-000000.parquet").stat().st_size
    monkeypatch.setattr("videorl.data.archive_compaction._MOST_BYTES", 2.5 * size)
    found = next_merge(tmp_path, read_layout(tmp_path), 10)
    assert found == [Span(0, 0), Span(1, 1)]
    assert not next_merge(tmp_path, Layout(()), 10)


def test_latents_of_a_partition_are_read_by_step(tmp_path: Path) -> None:
    archive = Archive(tmp_path, "none", keep_latents=True, steps_per_file=SIZE)
    write(archive, range(FULL))
    preferences = read_preferences(tmp_path)
    assert len(preferences) == FULL
    chosen, rejected = preferences.latents(1)
    assert chosen.equal(group(1).candidates[2].candidate.latents)
    assert rejected.equal(group(1).candidates[0].candidate.latents)
    row = read_table(tmp_path, "candidates", steps=[1]).to_pylist()[0]
    assert unpack_latents(row) is not None


def test_clips_of_merged_steps_are_found(tmp_path: Path) -> None:
    write(archive_of(tmp_path, videos="pairs"), range(FULL + SIZE))
    for path in list((tmp_path / "candidates").glob("step-*")):
        for table in SCHEMAS:
            (tmp_path / table / path.name).unlink()
    assert len(find_clips(tmp_path).keys) == 2 * 2 * SIZE


def test_the_index_follows_without_reading_merged_steps_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = archive_of(tmp_path)
    write(archive, range(FULL - 1))
    index = Index(tmp_path)
    index.refresh()
    keys = index.page(Filter(order="oldest"), 0, 100)
    before = read_groups(tmp_path, index, keys)
    write(archive, range(FULL - 1, FULL))
    read: list[list[int]] = []
    real = Index._read
    monkeypatch.setattr(Index, "_read", lambda self, steps: (read.append(steps), real(self, steps)))
    index.refresh()
    assert read == [[FULL - 1]], "only the step that is new"
    assert read_groups(tmp_path, index, keys) == before
    fresh = Index(tmp_path)
    fresh.refresh()
    assert fresh.page(Filter(order="oldest"), 0, 100) == index.page(Filter(order="oldest"), 0, 100)
    assert fresh.num_steps() == FULL


@pytest.mark.parametrize("table", ["candidates", "pairs"])
def test_a_damaged_partition_is_named_and_costs_its_steps_alone(tmp_path: Path, table: str) -> None:
    archive = archive_of(tmp_path)
    write(archive, range(FULL))
    file = tmp_path / table / "steps-000000-000001.parquet"
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    index = Index(tmp_path)
    index.refresh()
    assert list(index.problems) == [str(file)]
    assert index.count(Filter(first_step=2)) == 2
    with pytest.raises(ArchiveError, match="steps-000000-000001"):
        read_table(tmp_path, table)
    with pytest.raises(ArchiveError, match=r"steps-000000-000001.parquet is damaged, put back"):
        archive.truncate(1)
    assert committed_steps(tmp_path) == [0, 1, 2], "nothing was moved"
    file.write_bytes(content)
    index.refresh()
    assert not index.problems
    assert index.count(Filter()) == 2 * FULL


def test_readers_that_look_while_steps_are_merged_see_each_step_once(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, steps_per_file=2)
    write(archive, range(10))
    index, done, problems = Index(tmp_path), threading.Event(), list[object]()

    def look() -> None:
        try:
            while not done.is_set():
                steps = read_table(tmp_path, "steps")["step"].to_pylist()
                assert steps == list(range(len(steps)))
                index.refresh()
                assert index.count(Filter()) == 2 * index.num_steps()
                pairs = read_table(tmp_path, "pairs", steps=range(8))
                assert pairs.num_rows == 8
                assert not index.problems
        except BaseException as error:
            problems.append(error)
            raise

    reader = threading.Thread(target=look)
    reader.start()
    write(archive, range(10, 50))
    done.set()
    reader.join()
    assert not problems
    assert len(read_layout(tmp_path).spans) == 24 + 2


def test_the_number_of_files_is_bounded(tmp_path: Path) -> None:
    """6 (S / n + n + 8) files of tables for S steps, n in each file: 948 for 5,000 and 100."""
    size, num_steps = 10, 120
    archive = archive_of(tmp_path, steps_per_file=size)
    for step in range(num_steps):
        archive.write(record(step, []))
        if step % 17 == 0 or step == num_steps - 1:
            bound = len(SCHEMAS) * (step / size + size + APART)
            assert sum(path.is_file() for path in tmp_path.rglob("*")) <= bound
    assert sum(read_table(tmp_path, "steps")["step"].to_pylist()) == sum(range(num_steps))

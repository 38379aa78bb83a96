"""Everything that was sampled, scored and preferred, kept as Parquet tables and mp4 files.

    archive/candidates/step-000012.parquet    one row per candidate; its presence commits the step
    archive/scores/step-000012.parquet        one row per candidate and dimension
    archive/pairs/step-000012.parquet         one row per preference pair
    archive/dropped/step-000012.parquet       candidates lost on the way, by reason
    archive/prompts/step-000012.parquet       one row per prompt: trained on, or dropped and why
    archive/steps/step-000012.parquet         one row: the versions that sampled and came out
    archive/videos/step-000012/<candidate_id>.mp4
    archive/removed.json                      what `archive.keep_gb` has deleted so far

A step is first written to a hidden folder, so that a full disk leaves the archive as it was, and
then renamed into place, the candidates file last. Older steps are merged, a hundred into a file
`steps-000000-000099.parquet` (`videorl.data.archive_compaction`). Each table is a plain folder that
any Parquet reader opens; while steps are merged it may see them twice, which `read` does not.
Files of a step that has no candidates file are leftovers, which `read` ignores.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from videorl.data.archive_compaction import STEPS_PER_FILE, split, tidy
from videorl.data.archive_layout import Layout, files_of, read_layout, settled
from videorl.data.archive_tables import SCHEMAS, step_tables, table_path
from videorl.data.archive_upkeep import Upkeep
from videorl.data.video_io import encode_mp4
from videorl.errors import ArchiveError, WorkLostError
from videorl.files import superseded
from videorl.files.steps import step_name, steps_of
from videorl.types import Media, StepRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Archive:
    """Writes one archive; there must be only one writer at a time."""

    directory: Path
    keep_videos: str
    """`all`, `pairs` (chosen and rejected only) or `none`."""
    keep_latents: bool
    """Keep latents too: of every candidate if `keep_videos` is `all`, else of those in pairs."""
    fetch: Callable[[list[Media]], list[Any]] = list
    """Opens media handles, only those that are kept; the identity where media are values."""
    encode: Callable[[Any], bytes] = encode_mp4
    """Makes an mp4 file of what `fetch` opens: of a `Video`, or what was made of it elsewhere."""
    every: int = 1
    """Keep videos and latents of every so many steps only, from step 0 on."""
    keep_gb: float = 0.0
    """GB (10⁹ bytes) of videos and latents that are kept; 0 = all."""
    steps_per_file: int = STEPS_PER_FILE
    """Steps that are merged into a file of each table."""
    _upkeep: Upkeep = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Look at nothing yet."""
        made = Upkeep(self.directory, self.steps_per_file, self.keep_gb * 1e9)
        object.__setattr__(self, "_upkeep", made)

    def write(self, record: StepRecord) -> None:
        """Keep one step; writing a step again replaces it.

        Raises:
            ArchiveError: It could not be written, on a full disk for instance; nothing of the step
                is visible then, and earlier steps are untouched.
        """
        step = record.step
        partial = self.directory / f".partial-{step_name(step)}"
        try:
            shutil.rmtree(partial, ignore_errors=True)
            self._stage(partial, record)
            self._commit(partial, step)
        except OSError as error:
            raise ArchiveError(
                error.errno,
                f"step {step} could not be written to the archive {self.directory}: "
                f"{error.strerror or error}; free some disk space, or set archive.videos=none, "
                "and start the run again: it goes on from its last checkpoint",
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        self._upkeep.after(step)

    def flush(self) -> None:
        """Do nothing: `write` returns only when its step is on disk."""

    def truncate(self, step: int) -> None:
        """Take out every step >= `step` and every half-written step: go back to a checkpoint.

        Whole steps go to `superseded/` beside the archive.
        """
        tidy(self.directory)
        for span in reversed(read_layout(self.directory).spans):
            if span.is_partition and span.last >= step:
                split(self.directory, span, step)
        self._upkeep.forget()
        written = steps_of(self.directory.glob("*/step-*"))
        committed = read_layout(self.directory)
        # From the last step down: interrupted at any point, what is left has no hole.
        for number in sorted(written, reverse=True):
            if number >= step and (committed.has(number) or self._is_being_moved(number)):
                self._supersede(number)
            elif number >= step or not committed.has(number):
                self._remove(number)

    def _stage(self, partial: Path, record: StepRecord) -> None:
        (partial / "videos").mkdir(parents=True)
        learned = {
            scored.candidate.id for example in record.examples for scored in example.candidates
        }
        videos: dict[str, str] = {}
        latents: dict[str, Any] = {}
        for scored in (scored for group in record.groups for scored in group.candidates):
            candidate = scored.candidate
            if record.step % self.every or (
                self.keep_videos != "all" and candidate.id not in learned
            ):
                continue
            try:
                if self.keep_latents:
                    latents[candidate.id] = self.fetch([candidate.latents])[0]
                if self.keep_videos != "none" and candidate.video is not None:
                    encoded = self.encode(self.fetch([candidate.video])[0])
                    (partial / "videos" / f"{candidate.id}.mp4").write_bytes(encoded)
                    videos[candidate.id] = f"videos/{step_name(record.step)}/{candidate.id}.mp4"
            except WorkLostError as error:
                logger.warning("media of %s are not in the archive: %s", candidate.id, error)
        for name, table in step_tables(record, videos, latents).items():
            path = partial / f"{name}.parquet"
            pq.write_table(table, path, compression="zstd")
            _to_disk(path)

    def _commit(self, partial: Path, step: int) -> None:
        if (span := read_layout(self.directory).span(step)).is_partition:
            split(self.directory, span, step)
        self._remove(step)
        videos = self.directory / "videos" / step_name(step)
        videos.parent.mkdir(exist_ok=True)
        if any((partial / "videos").iterdir()):
            os.replace(partial / "videos", videos)
        for name in SCHEMAS:
            target = table_path(self.directory, name, step)
            target.parent.mkdir(exist_ok=True)
            os.replace(partial / f"{name}.parquet", target)

    def _is_being_moved(self, step: int) -> bool:
        """Return whether a truncation was interrupted after it had moved a step's first file."""
        first = table_path(self.directory, "candidates", step)
        return superseded.place(first, self.directory.parent).exists()

    def _supersede(self, step: int) -> None:
        for path in self._files(step):
            superseded.move(path, self.directory.parent)

    def _remove(self, step: int) -> None:
        *tables, videos = self._files(step)
        for table in tables:
            table.unlink(missing_ok=True)
        if videos.exists():
            shutil.rmtree(videos)

    def _files(self, step: int) -> list[Path]:
        """Return the tables and the folder of videos of a step, in the order of their removal."""
        # The candidates file goes first, as it came last: half a step is never visible.
        tables = [table_path(self.directory, name, step) for name in reversed(SCHEMAS)]
        return [*tables, self.directory / "videos" / step_name(step)]


def committed_steps(directory: Path) -> list[int]:
    """Return the steps that are wholly in the archive, in order."""
    return read_layout(directory).steps()


def read_table(
    directory: Path,
    name: str,
    columns: list[str] | None = None,
    steps: Sequence[int] | None = None,
) -> pa.Table:
    """Return one table; columns that an older version did not write are null.

    Columns may be of other types of Arrow that hold the same, as other programs write them.

    Args:
        directory: The archive folder.
        name: A key of `archive_tables.SCHEMAS`.
        columns: Columns to read, all by default; latents may be large.
        steps: Steps to read, in rising order; all committed steps by default.

    Raises:
        ArchiveError: A file of a committed step is missing or damaged.
    """
    return settled(directory, lambda layout: _read(directory, name, columns, steps, layout))


def _read(
    directory: Path,
    name: str,
    columns: list[str] | None,
    steps: Sequence[int] | None,
    layout: Layout,
) -> pa.Table:
    spans = layout.spans if steps is None else layout.spans_of(steps)
    paths = [span.path(directory, name) for span in spans]
    if missing := [path for path in paths if not path.exists()]:
        raise ArchiveError(f"{missing[0]} is missing ({len(missing)} such files)")
    if not paths:
        empty = SCHEMAS[name].empty_table()
        return empty if columns is None else empty.select(columns)
    wanted: Any = None
    if steps is not None and any(span.is_partition for span in spans):
        # The bounds are what groups of rows are left out by.
        wanted = (ds.field("step") >= min(steps)) & (ds.field("step") <= max(steps))
        wanted &= ds.field("step").isin(list(steps))
    try:
        dataset = ds.dataset(paths, schema=SCHEMAS[name], format="parquet")
        return dataset.to_table(columns=columns, filter=wanted)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise ArchiveError(f"a {name} file of {directory} cannot be read: {error}") from error


def read(directory: Path) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Return (candidates, scores, pairs) of all committed steps, in step order."""
    return (
        read_table(directory, "candidates"),
        read_table(directory, "scores"),
        read_table(directory, "pairs"),
    )


def video_path(directory: Path, recorded: str) -> Path:
    """Return the file of a video that the candidates table names.

    Raises:
        ArchiveError: It is outside the archive, where no run puts a video.
    """
    path = directory / recorded
    if not path.resolve().is_relative_to(directory.resolve()):
        raise ArchiveError(f"{directory} names a video outside of it, {recorded!r}; do not use it")
    return path


def check(directory: Path, num_steps: int) -> list[str]:
    """Return what is wrong with the archive of a run of `num_steps` steps; empty if nothing is."""
    layout = read_layout(directory)
    steps = layout.steps()
    holes = sorted(set(range(num_steps)) - set(steps))
    beyond = [step for step in steps if step >= num_steps]
    problems = [f"step {step} is missing" for step in holes]
    problems += [f"step {step} is beyond the last one, {num_steps - 1}" for step in beyond]
    for name in SCHEMAS:
        there = files_of(directory, name)
        lost = [step for span in layout.spans if span not in there for step in span.steps]
        problems += [f"step {step} has no {name} file" for step in lost]
        stray = sorted(step for span in there for step in span.steps if not layout.has(step))
        problems += [f"step {step} was not committed, but has a {name} file" for step in stray]
    if any("has no" in problem for problem in problems):
        return problems
    return problems + _check_rows(directory)


def _check_rows(directory: Path) -> list[str]:
    candidates = read_table(directory, "candidates", ["candidate_id", "video"])
    scores = read_table(directory, "scores", ["candidate_id"])
    pairs = read_table(directory, "pairs", ["chosen_id", "rejected_id"])
    ids = candidates["candidate_id"].to_pylist()
    known = set(ids)
    problems = [f"{name} is there {n} times" for name, n in Counter(ids).items() if n > 1]
    unscored = known - set(scores["candidate_id"].to_pylist())
    problems += [f"{name} has no scores" for name in sorted(unscored)]
    paired = {*pairs["chosen_id"].to_pylist(), *pairs["rejected_id"].to_pylist()}
    strangers = paired - known
    problems += [f"{name} is in a pair but is no candidate" for name in sorted(strangers)]
    videos = [path for path in candidates["video"].to_pylist() if path is not None]
    problems += [f"{path} is missing" for path in videos if not (directory / path).exists()]
    return problems


def _to_disk(path: Path) -> None:
    """Force a file to disk: after a power cut, a renamed but empty file would break the dataset."""
    with path.open("rb") as file:
        os.fsync(file.fileno())

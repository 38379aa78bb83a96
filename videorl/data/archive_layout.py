"""Which files hold the rows of a step: its own, or those of a partition of many steps.

    archive/candidates/step-000012.parquet             one step
    archive/candidates/steps-000000-000099.parquet     a partition: all steps from 0 to 99

A candidates file commits the steps that its name says. Where two of them name a step, the wider
counts; the other is left over from a compaction that was interrupted.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from videorl.errors import ArchiveError
from videorl.files.steps import step_name, step_of

_PARTITION = re.compile(r"steps-(\d{6,18})-(\d{6,18})\.parquet", re.ASCII)
_TRIES = 20
"""A reader that the writer overtakes looks again so many times; it compacts every so many steps."""

Result = TypeVar("Result")


@dataclass(frozen=True, order=True, slots=True)
class Span:
    """Steps in a row whose rows are in the same files."""

    first: int
    last: int
    """At least `first`."""

    @property
    def is_partition(self) -> bool:
        """Whether it was made by compaction."""
        return self.last > self.first

    @property
    def name(self) -> str:
        """Of its files, without ending."""
        if self.is_partition:
            return f"steps-{self.first:06d}-{self.last:06d}"
        return step_name(self.first)

    @property
    def steps(self) -> range:
        """All steps."""
        return range(self.first, self.last + 1)

    def path(self, directory: Path, table: str) -> Path:
        """Return its file of a table, whether it is there or not."""
        return directory / table / f"{self.name}.parquet"


def span_of(file: str) -> Span | None:
    """Return the steps that the name of a file says; None = it is no file of an archive's table."""
    if found := _PARTITION.fullmatch(file):
        span = Span(int(found[1]), int(found[2]))
        return span if span.is_partition else None
    step = step_of(file)
    own = None if step is None else Span(step, step)
    return own if own and file == f"{own.name}.parquet" else None


@dataclass(frozen=True)
class Layout:
    """The committed files of an archive."""

    spans: tuple[Span, ...]
    """In the order of steps; none twice."""

    @cached_property
    def _firsts(self) -> list[int]:
        return [span.first for span in self.spans]

    def steps(self) -> list[int]:
        """Return all committed steps, in order."""
        return [step for span in self.spans for step in span.steps]

    def has(self, step: int) -> bool:
        """Tell whether a step is committed."""
        place = bisect_right(self._firsts, step) - 1
        return place >= 0 and step <= self.spans[place].last

    def span(self, step: int) -> Span:
        """Return the files of a step; its own ones where it is not committed."""
        own = Span(step, step)
        return self.spans[bisect_right(self._firsts, step) - 1] if self.has(step) else own

    def spans_of(self, steps: Iterable[int]) -> list[Span]:
        """Return the files of some steps, each once, in the order of the steps."""
        return list(dict.fromkeys(map(self.span, steps)))


def layout_of(found: Collection[Span], where: object = "the archive") -> Layout:
    """Return the layout that the candidates files of an archive make.

    Raises:
        ArchiveError: Two partitions overlap, and neither holds the other.
    """
    spans: list[Span] = []
    for span in sorted(found, key=lambda span: (span.first, -span.last)):
        if not spans or span.first > spans[-1].last:
            spans.append(span)
        elif span.last > spans[-1].last:
            raise ArchiveError(
                f"{where}: candidates/{spans[-1].name}.parquet and {span.name}.parquet both have "
                f"step {span.first}, as no run leaves them; move one of them away"
            )
    return Layout(tuple(spans))


def read_layout(directory: Path) -> Layout:
    """Return the committed files as they are now, also while the run compacts them.

    Raises:
        ArchiveError: As `layout_of`.
    """
    # A listing may miss both a new partition and the files that it replaced, but not twice.
    found = files_of(directory, "candidates")
    while (again := files_of(directory, "candidates")) != found:
        found = again
    return layout_of(found, directory)


def files_of(directory: Path, table: str) -> set[Span]:
    """Return the steps that the files of a table name, committed or not."""
    try:
        with os.scandir(directory / table) as entries:
            spans = [span_of(entry.name) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        return set()
    return {span for span in spans if span}


def check_there(directory: Path, spans: Iterable[Span]) -> None:
    """Check that nothing of committed steps was moved while their tables were read.

    Raises:
        ArchiveError: It was, so that rows may be missing.
    """
    for span in spans:
        # Of all its tables this file goes first.
        if not (file := span.path(directory, "candidates")).exists():
            raise ArchiveError(f"{file} is gone")


def settled(directory: Path, read: Callable[[Layout], Result]) -> Result:
    """Return what `read` finds; it is called again where the writer moved rows meanwhile.

    Args:
        directory: The archive folder.
        read: Reads by a layout; raises an error if a file that it needs is gone.

    Raises:
        ArchiveError: The writer moves rows faster than they can be read.
        Exception: That of `read`, where nothing was moved.
    """
    layout = read_layout(directory)
    for _ in range(_TRIES):
        try:
            return read(layout)
        except (ArchiveError, OSError):
            now = read_layout(directory)
            if now == layout:
                raise
            layout = now
    raise ArchiveError(f"{directory} changes faster than it can be read; try again")

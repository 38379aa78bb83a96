"""Where the metrics of a run go: a JSON file, a terminal, and trackers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import yaml

from videorl.files import superseded
from videorl.objectives.objective import ACCURACY, EXAMPLES, LOSS, MARGIN
from videorl.recipes.fingerprint import RunRecipe, flatten
from videorl.recipes.reading import to_yaml
from videorl.run.folder import RunFolder
from videorl.run.progress import ProgressSink
from videorl.run.run_id import read_run_id
from videorl.trackers.behind import Behind
from videorl.trackers.opening import open_trackers
from videorl.trackers.tracker import FixedVideo, TrackedRun


class RunSink(Protocol):
    """A `videorl.protocols.MetricSink` that can be cut back when a run is resumed."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        ...

    def truncate(self, step: int) -> None:
        """Forget every step >= `step`: the run goes on from there."""
        ...

    def close(self) -> None:
        """Finish; nothing is written afterwards."""
        ...


class FanOut:
    """Gives everything to several sinks, in order, and to the trackers of the run.

    Args:
        sinks: Get the metrics; an error of theirs ends the run.
        trackers: Get all; what they lost so far is among the metrics, as `tracker/<name>_lost`.
    """

    def __init__(self, sinks: Sequence[RunSink], trackers: Sequence[Behind] = ()) -> None:
        self._all: tuple[RunSink, ...] = (*sinks, *trackers)
        self._trackers = tuple(trackers)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step in every sink."""
        metrics = {**metrics, **self.lost()}
        for sink in self._all:
            sink.write(step, metrics)

    def lost(self) -> dict[str, float]:
        """Return what the trackers have lost so far, also those of a `FanOut` among the sinks."""
        inner = [sink.lost() for sink in self._all if isinstance(sink, FanOut)]
        counts = {f"tracker/{one.name}_lost": float(one.num_lost) for one in self._trackers}
        own = {name: count for name, count in counts.items() if count}
        return {name: count for found in [*inner, own] for name, count in found.items()}

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Give the videos of the fixed prompts to every tracker."""
        for tracker in self._trackers:
            tracker.videos(step, videos)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Give the results of the run to every tracker, by dotted key."""
        flat = dict(flatten(facts))
        for tracker in self._trackers:
            tracker.summary(flat)

    def truncate(self, step: int) -> None:
        """Cut every sink back."""
        for sink in self._all:
            sink.truncate(step)

    def close(self) -> None:
        """Close every sink; the trackers have the same seconds for what is left."""
        for tracker in self._trackers:
            tracker.begin_close()
        for sink in self._all:
            sink.close()


def fan_out(sinks: Sequence[RunSink]) -> FanOut:
    """Return one sink that writes to all of `sinks`."""
    return FanOut(sinks)


class JsonlSink:
    """One strict JSON object per line and step: `{"step": 0, "reward/total": 0.1, …}`.

    NaN and infinities, which JSON does not have, become null. A line torn by a crash is dropped
    when the file is opened again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._rewrite(read_metrics(path))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line({"step": step, **metrics}))
            file.flush()
            # A checkpoint may follow: after a power cut no step before it may be missing here.
            os.fsync(file.fileno())

    def truncate(self, step: int) -> None:
        """Move the lines of every step >= `step` into `superseded/` beside the file."""
        rows = read_metrics(self._path) if self._path.exists() else []
        kept = [row for row in rows if row["step"] < step]
        if len(kept) == len(rows):
            return
        _keep_aside(superseded.place(self._path, self._path.parent), rows[len(kept) :])
        self._rewrite(kept)

    def close(self) -> None:
        """Do nothing: every line was written when it was given."""

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        partial = self._path.with_name(f".{self._path.name}.partial")
        partial.write_text("".join(_line(row) for row in rows), encoding="utf-8")
        os.replace(partial, self._path)


def _keep_aside(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows to those of steps that were cut off before, and are not among these."""
    before = read_metrics(path) if path.exists() else []
    by_step = {row["step"]: row for row in [*before, *rows]}
    lines = (_line(by_step[step]) for step in sorted(by_step))
    path.write_text("".join(lines), encoding="utf-8")


def _line(row: Mapping[str, Any]) -> str:
    strict = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
    return json.dumps(strict, allow_nan=False) + "\n"


_BLOCK = 1 << 16
"""Bytes that are read at once from the end of a file: some rows."""

OLDER_NAMES = {
    "dpo/loss": LOSS,
    "regression/loss": LOSS,
    "refl/loss": LOSS,
    "dpo/pairs": EXAMPLES,
    "regression/candidates": EXAMPLES,
    "refl/videos": EXAMPLES,
    "dpo/accuracy": ACCURACY,
    "dpo/margin": MARGIN,
}
"""Names that each objective had of its own -> those that all now share."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a `JsonlSink` file under today's names; a torn last line is left out.

    Raises:
        ValueError: Another line is not a JSON object with a step.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    # What follows the last line end is empty, or a line that was never finished.
    return [_row(line, f"{path}, line {number}") for number, line in enumerate(lines[:-1], start=1)]


def read_last_metrics(path: Path) -> dict[str, Any] | None:
    """Return the last row of `read_metrics`, reading the end of the file alone; None = no row.

    Raises:
        ValueError: It is not a JSON object with a step.
    """
    with path.open("rb") as file:
        start, block = file.seek(0, os.SEEK_END), b""
        while start:
            end, start = start, max(0, start - _BLOCK)
            file.seek(start)
            block = file.read(end - start) + block
            lines = block.split(b"\n")[:-1]
            if len(lines) > 1 or (lines and not start):
                return _row(lines[-1].decode(errors="replace"), f"{path}, the last line")
    return None


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        # Files that others made may hold NaN, which ours have as null.
        row = json.loads(line, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place} is not JSON: {line[:80]!r}") from error
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise ValueError(f"{place} has no integer step: {line[:80]!r}")
    return _renamed(row)


def _renamed(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row under today's names; if it has one already, the older is a metric of its own."""
    made: dict[str, Any] = {}
    for name, value in row.items():
        today = OLDER_NAMES.get(name, name)
        made[name if today in row or today in made else today] = value
    return made


@contextmanager
def open_sinks(
    recipe: RunRecipe, folder: RunFolder, given: FanOut | None = None
) -> Iterator[FanOut]:
    """Open everything that the recipe writes metrics to, and close it at the end.

    Args:
        recipe: The run.
        folder: Its folder.
        given: What is open already, and stays so; None = nothing is.

    Raises:
        ConfigError: A tracker that the recipe names cannot be used here.
    """
    if given is not None:
        yield given
        return
    run = TrackedRun(folder.root, read_run_id(folder.root), folder.root.name, recipe.name)
    settings = dict(flatten(yaml.safe_load(to_yaml(recipe))))
    trackers = open_trackers(recipe.metrics, run, settings)
    together = FanOut([JsonlSink(folder.metrics), ProgressSink(recipe.num_steps)], trackers)
    try:
        yield together
    finally:
        together.close()

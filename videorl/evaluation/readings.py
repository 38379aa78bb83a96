"""What an evaluation during training found, and how far that is from the base: files and numbers.

evaluation/during/step-000010.json      the values of every prompt, with the weights of step 10
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from videorl.errors import RunFolderError
from videorl.evaluation.statistics import Interval, paired_bootstrap
from videorl.files import superseded, write_json
from videorl.types import ScoredCandidate, ScoredGroup, WeightVersion

FOLDER = "evaluation/during"
PREFIX = "evaluation/"
"""Of the metrics; what follows is the name of a reading's values."""
TOTAL = "reward/total"
MODEL = "model/"
"""Before the name of a reward model: its own total, where there are several."""
_STEP = re.compile(r"step-(\d+)")


@dataclass(frozen=True, slots=True)
class Reading:
    """The values of every held-out prompt under some weights, by the names of a step's metrics."""

    step: int
    """Of the weights."""
    digest: str
    prompts: tuple[int, ...]
    """Indices of the prompts, P of them."""
    values: Mapping[str, Sequence[float | None]]
    """`reward/…` and `unseen/…` -> the mean over the samples of each prompt, [P]; None for a prompt
    without it, such as the diversity of a single sample."""

    def by_prompt(self, name: str) -> dict[int, float]:
        """Return the index of each prompt that has a value -> the value."""
        values = self.values.get(name, [None] * len(self.prompts))
        both = zip(self.prompts, values, strict=True)
        return {index: value for index, value in both if value is not None}

    def mean(self, name: str) -> float:
        """Return the mean of a value over all prompts that have it."""
        return float(np.mean([*self.by_prompt(name).values()]))


def reading_of(version: WeightVersion, groups: Sequence[ScoredGroup]) -> Reading | None:
    """Return the reading of scored groups; None if no prompt has a candidate.

    A prompt has a value only if all of its samples have it.
    """
    scored = [group for group in groups if group.candidates]
    if not scored:
        return None
    rows = [[_values(candidate) for candidate in group.candidates] for group in scored]
    names = dict.fromkeys(name for group in rows for row in group for name in row)
    return Reading(
        version.step,
        version.digest,
        tuple(group.prompt.index for group in scored),
        {name: [_mean(name, group) for group in rows] for name in names},
    )


def _mean(name: str, rows: Sequence[Mapping[str, float]]) -> float | None:
    return float(np.mean([row[name] for row in rows])) if all(name in row for row in rows) else None


def _values(scored: ScoredCandidate) -> dict[str, float]:
    dimensions = {f"reward/{name}": value for name, value in scored.score.dimensions.items()}
    unseen = {f"unseen/{name}": value for name, value in scored.unseen.items()}
    models = {f"{MODEL}{key}": total for key, total in scored.score.by_model.items()}
    return {TOTAL: scored.score.total, **dimensions, **models, **unseen}


def paired(before: Reading, after: Reading, name: str) -> tuple[list[float], list[float]]:
    """Return a value of the prompts that have it in both readings, [P] each, in the same order."""
    first, second = before.by_prompt(name), after.by_prompt(name)
    shared = [index for index in second if index in first]
    return [first[index] for index in shared], [second[index] for index in shared]


def change(before: Reading, after: Reading, name: str) -> Interval | None:
    """Return the mean of `after - before` with its paired 95 % bootstrap interval over prompts.

    None where one of them lacks the value, or no prompt has it in both.
    """
    first, second = paired(before, after, name)
    return paired_bootstrap(first, second) if first else None


def best(readings: Sequence[Reading]) -> Reading:
    """Return the reading (of at least one) with the highest mean total; of equal ones the first."""
    return max(readings, key=lambda reading: (reading.mean(TOTAL), -reading.step))


def metrics_of(base: Reading, reading: Reading) -> dict[str, float]:
    """Return what a step logs of a reading.

    `evaluation/<name>` is the mean, `…_low` and `…_high` are the ends of the interval of its
    difference from the base, which is paired by prompt, drawn around the mean. A single prompt has
    no interval.
    """
    found = {
        "evaluation/step": float(reading.step),
        "evaluation/prompts": float(len(reading.prompts)),
    }
    for name in [name for name in reading.values if reading.by_prompt(name)]:
        mean = found[PREFIX + name] = reading.mean(name)
        moved = change(base, reading, name)
        if moved is not None and len(paired(base, reading, name)[0]) > 1:
            found[f"{PREFIX}{name}_low"] = mean + moved.low - moved.mean
            found[f"{PREFIX}{name}_high"] = mean + moved.high - moved.mean
    return found


def path_of_reading(root: Path, step: int) -> Path:
    """Return where the reading of a step is, or will be, in the run folder `root`."""
    return root / FOLDER / f"step-{step:06d}.json"


def write_reading(root: Path, reading: Reading) -> None:
    """Write a reading into the run folder `root`."""
    path = path_of_reading(root, reading.step)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(reading))


def read_readings(root: Path) -> list[Reading]:
    """Return the readings of the run folder `root`, by step.

    Raises:
        RunFolderError: A file is damaged.
    """
    return [_read(path) for _, path in _files(root)]


def _read(path: Path) -> Reading:
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        return Reading(saved["step"], saved["digest"], tuple(saved["prompts"]), saved["values"])
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{path} is damaged ({error!r}): remove it, and its weights count as not evaluated"
        ) from error


def truncate(root: Path, step: int) -> None:
    """Move the readings of later steps than `step` to `superseded/`: go back to a checkpoint."""
    for number, path in _files(root):
        if number > step:
            superseded.move(path, root)


def _files(root: Path) -> list[tuple[int, Path]]:
    found = (
        (match, path)
        for path in (root / FOLDER).glob("step-*.json")
        if (match := _STEP.fullmatch(path.stem))
    )
    return sorted((int(match[1]), path) for match, path in found)

"""What a comparison needs of each run folder: scored held-out groups, settings, cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from videorl.config import Recipe
from videorl.errors import RunFolderError
from videorl.evaluation.record import read_groups
from videorl.recipes.fingerprint import flatten, is_default
from videorl.recipes.older import migrated
from videorl.report.contents import RunContents, read_run
from videorl.run.folder import RunFolder
from videorl.types import ScoredGroup

OWN = ("name", "run_dir")
"""Settings that differ between any two runs."""


@dataclass(frozen=True)
class ComparedRun:
    """A run folder, read."""

    label: str
    """The folder's name, with as much of its path as tells it from the others'."""
    folder: Path
    contents: RunContents
    recipe: Mapping[str, Any]
    """Its `config.yaml`, in today's layout."""
    before: Sequence[ScoredGroup]
    """Held-out groups of the base, one per prompt that lost no candidate; empty = not there."""
    after: Sequence[ScoredGroup]
    """The same of the aligned policy."""
    num_lost: int
    """Held-out prompts of which the base or the aligned policy lost a candidate."""

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted name, such as `rewards.0.weight`."""
        return dict(flatten(self.recipe))

    @property
    def steps(self) -> int:
        """Steps that were finished."""
        return self.contents.rows[-1]["step"] + 1 if self.contents.rows else 0

    @property
    def training_seconds(self) -> float | None:
        """Wall seconds of all steps, those before a resume included; checkpoints are not."""
        return self._sum("time/step_s")

    @property
    def candidates(self) -> int | None:
        """Training candidates that were scored; None where nothing is, as in offline runs."""
        scored = self._sum("candidates/scored")
        return None if scored is None else round(scored)

    def _sum(self, metric: str) -> float | None:
        known = [value for _, value in self.contents.series(metric) if value is not None]
        return sum(known) if known else None


def read_runs(folders: Sequence[Path]) -> list[ComparedRun]:
    """Read run folders, in this order.

    Raises:
        RunFolderError: There are fewer than two, two are the same, or one is no run folder or
            holds a file that cannot be read.
    """
    if len(folders) < 2:
        raise RunFolderError(f"two runs or more can be compared, got {len(folders)}")
    resolved = Counter(folder.resolve() for folder in folders)
    for folder in folders:
        if resolved[folder.resolve()] > 1:
            raise RunFolderError(f"{folder} is listed twice; name each run once")
        if not folder.is_dir():
            raise RunFolderError(f"there is no folder {folder}; name the folders of your runs")
    return [
        _read(folder, label) for folder, label in zip(folders, _labels(list(resolved)), strict=True)
    ]


def differing_settings(runs: Sequence[ComparedRun]) -> dict[str, dict[str, Any]]:
    """Return dotted name -> label -> value of the settings that not all runs have alike.

    A run that lacks the setting, as with another objective, has no entry. One that was written
    before there was the setting has its default, which is no difference.
    """
    settings = {run.label: run.settings for run in runs}
    names = dict.fromkeys(name for found in settings.values() for name in found)
    differing: dict[str, dict[str, Any]] = {}
    for name in names:
        values = {label: found[name] for label, found in settings.items() if name in found}
        alike = len({repr(value) for value in values.values()}) == 1 and (
            len(values) == len(runs) or is_default(name, next(iter(values.values())))
        )
        if name not in OWN and not alike:
            differing[name] = values
    return differing


def _labels(folders: Sequence[Path]) -> list[str]:
    """Return as much of the ends of different absolute paths as tells them apart."""
    longest = max(len(folder.parts) for folder in folders)
    ends = ([Path(*folder.parts[-n:]) for folder in folders] for n in range(1, longest + 1))
    return list(map(str, next(names for names in ends if len(set(names)) == len(names))))


def _read(root: Path, label: str) -> ComparedRun:
    contents = read_run(root)
    evaluation = RunFolder(root).evaluation
    before, after = (_groups(evaluation / f"{name}.json") for name in ("before", "after"))
    whole = [[group for group in groups if _is_whole(group)] for groups in (before, after)]
    return ComparedRun(
        label=label,
        folder=root,
        contents=contents,
        recipe=migrated(yaml.safe_load(contents.config), Recipe),
        before=whole[0],
        after=whole[1],
        num_lost=len({group.prompt.index for group in (*before, *after) if not _is_whole(group)}),
    )


def _is_whole(group: ScoredGroup) -> bool:
    return bool(group.candidates) and not group.dropped


def _groups(path: Path) -> list[ScoredGroup]:
    if not path.exists():
        return []
    try:
        return read_groups(path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        is_torn = isinstance(error, json.JSONDecodeError)
        what = "is half-written" if is_torn else "was written by another version, or is damaged"
        raise RunFolderError(
            f"{path} {what} ({type(error).__name__}: {error}); put the whole file back, "
            "or leave this run out"
        ) from error

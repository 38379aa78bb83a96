"""What measured folders come to: means with intervals, differences, totals, FVD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np

from videorl.data.clips import Key
from videorl.evaluation.corrections import flipped_signs
from videorl.evaluation.statistics import Interval, paired_bootstrap
from videorl.measures.folders import Folder
from videorl.measures.measuring import FEATURES, I3D, MOTION, MOVED_LIGHT, VIDEO_MAE, Measured
from videorl.measures.people import Agreement
from videorl.measures.power import FEWEST, difference_seen, prompts_needed_if_any
from videorl.measures.store import Values
from videorl.measures.vbench import DIMENSIONS, totals
from videorl.measures.win_rates import WinRate

FVD = {VIDEO_MAE: "FVD (VideoMAE)", I3D: "FVD (I3D)"}
"""What FVD on each of the features is called: their numbers have nothing to do with each other."""
AT_INFINITY = " at infinity"
TOTALS = ("quality score", "semantic score", "total score")
DIVERSITY, WIN_RATE = "diversity", "win rate"


@dataclass(frozen=True, slots=True)
class Column:
    """How a measure is shown."""

    scale: float = 1.0
    """Tables show a value times this."""
    sign: Literal[1, -1, 0] = 1
    """1 = more is better, −1 = less is, 0 = neither."""


_COLUMNS = {
    **dict.fromkeys((*DIMENSIONS, *TOTALS), Column(100.0)),
    **{name + end: Column(1.0, -1) for name in FVD.values() for end in ("", AT_INFINITY)},
    MOTION: Column(1.0, 0),
    **dict.fromkeys((MOVED_LIGHT, DIVERSITY), Column(100.0, 0)),
}


def column_of(name: str) -> Column:
    """Return how a measure is shown; those of reward models as they are."""
    return _COLUMNS.get(name, Column())


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a folder."""

    value: float
    interval: Interval | None = None
    """95 %, prompts resampled (FVD: clips)."""
    difference: Interval | None = None
    """From the first folder, paired by prompt."""
    seen: float | None = None
    """The smallest true difference that so many prompts show with a power of 80 %; None = none."""
    needed: int | None = None
    """Prompts that show the difference that was found with a power of 80 %."""
    num_prompts: int = 0
    p: float | None = None
    """Of the difference, by flipped signs; see `videorl.evaluation.corrections`."""
    p_holm: float | None = None
    """The same, corrected for all comparisons of the report."""


@dataclass(frozen=True)
class Row:
    """A folder."""

    label: str
    num_clips: int
    num_prompts: int
    numbers: Mapping[str, Number]
    num_failed: int = 0
    """Clips that lack a number."""


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A number of a method; training seeds are the unit, and prompts are the same for all."""

    method: str
    measure: str
    num_seeds: int
    value: Interval
    """Mean of the seeds' values, with Student's 95 % interval."""
    difference: Interval | None = None
    """From the first folder, likewise; of a win rate, from one half. None where all seeds are
    equal, or there is one: `value` has no width then, and that says nothing of other seeds."""
    p: float | None = None
    """Of a difference of 0, Student's t; None where the seeds show no spread."""
    p_holm: float | None = None
    """The same, corrected for all methods and measures of the table."""


@dataclass(frozen=True)
class ClipNumbers:
    """What was measured of a clip."""

    folder: str
    video: str
    prompt: str
    numbers: Mapping[str, float]


def clip_numbers(folders: Sequence[Folder], measured: Mapping[str, Measured]) -> list[ClipNumbers]:
    """Return every clip with its single numbers, those of prompts and features left out."""
    found: list[ClipNumbers] = []
    for folder in folders:
        values = measured.get(folder.label, Measured()).values
        names = [name for name in values if name not in (*FEATURES, DIVERSITY)]
        for key in folder.keys:
            numbers = {name: float(values[name][key][0]) for name in names if key in values[name]}
            found.append(ClipNumbers(folder.label, *key, numbers))
    return found


def by_path(
    folders: Sequence[Folder], measured: Mapping[str, Measured]
) -> dict[Path, dict[str, float]]:
    """Return the resolved path of every clip that is a file or folder -> its numbers."""
    found: dict[Path, dict[str, float]] = {}
    for folder in folders:
        values = measured.get(folder.label, Measured()).values
        names = [name for name in values if name not in (*FEATURES, DIVERSITY)]
        for clip in folder.clips(set(folder.keys)):
            if isinstance(clip.content, str):
                found[Path(clip.content).resolve()] = {
                    name: float(values[name][clip.key][0])
                    for name in names
                    if clip.key in values[name]
                }
    return found


@dataclass(frozen=True)
class Report:
    """All that a comparison says."""

    rows: Sequence[Row]
    win_rates: Sequence[WinRate] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict[str, object])
    agreement: Sequence[Agreement] = ()
    methods: Sequence[OverSeeds] = ()
    clips: Sequence[ClipNumbers] = ()
    computed_by: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name of a measure -> what computed it."""
    made_with: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    """See `videorl.measures.made_with`."""


def sign_of(name: str) -> int:
    """Return −1 for a measure of which less is better, else 1."""
    return column_of(name).sign or 1


def row_of(folder: Folder, numbers: Mapping[str, Number], measured: Mapping[str, Measured]) -> Row:
    """Return the row of a folder."""
    failed = measured[folder.label].problems if folder.label in measured else {}
    num_prompts = len(set(map(folder.unit, folder.keys)))
    return Row(folder.label, len(folder.keys), num_prompts, numbers, len(failed))


def means(
    folders: Sequence[Folder], measured: Mapping[str, Measured], name: str
) -> dict[str, Number]:
    """Return the mean of a measure over the prompts of each folder, by label.

    A prompt is the mean of its clips: means and differences weigh alike, so that the difference of
    two means over the same prompts is the mean difference. Differences are from the first folder;
    if that has no number, there are none.
    """
    found: dict[str, Number] = {}
    first: dict[str, float] = {}
    for place, folder in enumerate(folders):
        units = _by_unit(folder, measured.get(folder.label, Measured()).values.get(name, {}))
        if not units:
            continue
        by_unit = {unit: fmean(values) for unit, values in units.items()}
        interval = mean_of_prompts(list(by_unit.values()))
        # The interval of a single prompt would be a point.
        shown = interval if len(units) > 1 else None
        number = Number(interval.mean, shown, num_prompts=len(units))
        found[folder.label] = _against(number, first, by_unit) if first else number
        first = by_unit if place == 0 else first
    return found


def _by_unit(folder: Folder, values: Mapping[Key, Values]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = defaultdict(list)
    for key in folder.keys:
        if key in values:
            found[folder.unit(key)].append(float(values[key][0]))
    return found


def _against(number: Number, first: Mapping[str, float], mine: Mapping[str, float]) -> Number:
    shared = [unit for unit in first if unit in mine]
    if len(shared) < 2:
        return number
    before, after = [first[unit] for unit in shared], [mine[unit] for unit in shared]
    difference = paired_bootstrap(before, after)
    deviation = float(np.std(np.subtract(after, before), ddof=1))
    needed = prompts_needed_if_any(difference.mean, deviation)
    seen = difference_seen(len(shared), deviation) if len(shared) >= FEWEST else None
    p = flipped_signs(np.subtract(after, before))
    return replace(
        number, difference=difference, seen=seen, needed=needed, num_prompts=len(shared), p=p
    )


def mean_of_prompts(values: Sequence[float]) -> Interval:
    """Return the mean with its 95 % interval, prompts resampled with all of their clips.

    Args:
        values: The mean over the clips of each prompt.
    """
    return paired_bootstrap(np.zeros(len(values)), values)


def with_totals(numbers: Mapping[str, Number], dimensions: Sequence[str]) -> dict[str, Number]:
    """Return the numbers of a folder with VBench's totals, where all of their dimensions are."""
    raw = {name: numbers[name].value for name in dimensions if name in numbers}
    found = totals(raw)
    values = zip(TOTALS, (found.quality, found.semantic, found.total), strict=True)
    return {**numbers, **{name: Number(value) for name, value in values if value is not None}}

"""What measured folders come to: means with intervals, differences, totals, FVD."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from videorl.data.clips import Key
from videorl.evaluation.statistics import Interval, paired_bootstrap
from videorl.measures.folders import Folder
from videorl.measures.measuring import Measured
from videorl.measures.power import difference_seen, prompts_needed_if_any
from videorl.measures.store import Values
from videorl.measures.vbench import totals
from videorl.measures.win_rates import WinRate

FVD, FVD_AT_INFINITY = "FVD", "FVD at infinity"
TOTALS = ("quality score", "semantic score", "total score")
SMALLER_IS_BETTER = (FVD, FVD_AT_INFINITY)


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a folder."""

    value: float
    interval: Interval | None = None
    """95 %, prompts resampled (FVD: clips)."""
    difference: Interval | None = None
    """From the first folder, paired by prompt."""
    seen: float | None = None
    """The smallest true difference that so many prompts show with a power of 80 %."""
    needed: int | None = None
    """Prompts that show the difference that was found with a power of 80 %."""
    num_prompts: int = 0


@dataclass(frozen=True)
class Row:
    """A folder."""

    label: str
    num_clips: int
    num_prompts: int
    numbers: Mapping[str, Number]
    num_failed: int = 0
    """Clips that lack a number."""


@dataclass(frozen=True)
class Report:
    """All that a comparison says."""

    rows: Sequence[Row]
    win_rates: Sequence[WinRate] = ()
    notes: Sequence[str] = ()
    settings: Mapping[str, object] = field(default_factory=dict[str, object])


def row_of(folder: Folder, numbers: Mapping[str, Number], measured: Mapping[str, Measured]) -> Row:
    """Return the row of a folder."""
    failed = measured[folder.label].problems if folder.label in measured else {}
    num_prompts = len(set(map(folder.unit, folder.keys)))
    return Row(folder.label, len(folder.keys), num_prompts, numbers, len(failed))


def means(
    folders: Sequence[Folder], measured: Mapping[str, Measured], name: str
) -> dict[str, Number]:
    """Return the mean of a measure over the clips of each folder, by label.

    Differences are from the first folder; if that has no number, there are none.
    """
    found: dict[str, Number] = {}
    first: dict[str, float] = {}
    for place, folder in enumerate(folders):
        units = _by_unit(folder, measured.get(folder.label, Measured()).values.get(name, {}))
        if not units:
            continue
        interval = clustered_mean(list(units.values()))
        # The interval of a single prompt would be a point.
        shown = interval if len(units) > 1 else None
        number = Number(interval.mean, shown, num_prompts=len(units))
        by_unit = {unit: fmean(values) for unit, values in units.items()}
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
    seen = difference_seen(len(shared), deviation)
    return replace(number, difference=difference, seen=seen, needed=needed, num_prompts=len(shared))


def clustered_mean(
    clusters: Sequence[Sequence[float]], *, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """Return the mean of all values with its 95 % interval, whole clusters resampled.

    Args:
        clusters: The values of each prompt, one or more.
        num_resamples: Bootstrap samples.
        seed: Equal arguments give equal intervals.
    """
    sums = np.array([sum(values) for values in clusters])
    counts = np.array([len(values) for values in clusters])
    generator, found = np.random.default_rng(seed), np.empty(num_resamples)
    for start in range(0, num_resamples, 500):  # in blocks, to keep the memory small
        block = found[start : start + 500]
        drawn = generator.integers(0, len(clusters), (len(block), len(clusters)))
        block[:] = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(float(sums.sum() / counts.sum()), float(low), float(high))


def with_totals(numbers: Mapping[str, Number], dimensions: Sequence[str]) -> dict[str, Number]:
    """Return the numbers of a folder with VBench's totals, where all of their dimensions are."""
    raw = {name: numbers[name].value for name in dimensions if name in numbers}
    found = totals(raw)
    values = zip(TOTALS, (found.quality, found.semantic, found.total), strict=True)
    return {**numbers, **{name: Number(value) for name, value in values if value is not None}}

"""All numbers of a comparison, from what was measured and what others wrote."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from videorl.errors import ConfigError
from videorl.measures import frechet
from videorl.measures.diversity import by_prompt
from videorl.measures.folders import Folder
from videorl.measures.measuring import FEATURES, VIDEO_MAE, Measure, Measured
from videorl.measures.results import AT_INFINITY, DIVERSITY, FVD, Number, means, with_totals
from videorl.measures.vbench import DIMENSIONS

logger = logging.getLogger(__name__)


@dataclass
class Numbers:
    """Numbers by label and name, and what to know of them."""

    found: dict[str, dict[str, Number]]
    notes: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    """Why a number that was asked for is not there."""


def all_numbers(
    folders: Sequence[Folder],
    measured: Mapping[str, Measured],
    published: Mapping[str, Mapping[str, float]],
    *,
    has_diversity: bool = False,
) -> Numbers:
    """Return every number of each folder but FVD: VBench first, then what else was measured.

    Args:
        folders: The first is the base.
        measured: By label; means of every measure but features.
        published: What the `vbench` package wrote, by label; it goes before what was measured.
        has_diversity: Add the diversity within prompts, of the features.
    """
    numbers = vbench_numbers(folders, measured, published)
    if has_diversity:
        for folder in folders:
            found = measured.get(folder.label, Measured())
            values = by_prompt(folder, found.values.get(VIDEO_MAE, {}))
            found.values[DIVERSITY] = values
            if not values:
                text = f"diversity of {folder.label} is not measured: no prompt has two clips"
                numbers.problems.append(text)
    names = [name for found in measured.values() for name, values in found.values.items() if values]
    for name in dict.fromkeys(names):
        if name not in DIMENSIONS and name not in FEATURES:
            for label, number in means(folders, measured, name).items():
                numbers.found[label][name] = number
    return numbers


def vbench_numbers(
    folders: Sequence[Folder],
    measured: Mapping[str, Measured],
    published: Mapping[str, Mapping[str, float]],
) -> Numbers:
    """Return VBench's dimensions and totals of each folder.

    Args:
        folders: The first is the base.
        measured: By label.
        published: What the `vbench` package wrote, by label; it goes before what was measured.
    """
    here = {name: means(folders, measured, name) for name in DIMENSIONS}
    numbers = Numbers({})
    for folder in folders:
        label, theirs = folder.label, published.get(folder.label, {})
        found = {name: values[label] for name, values in here.items() if label in values}
        for name in found.keys() & theirs.keys():
            value = f"{100 * found[name].value:.2f}"
            note = f"{name} of {label} is VBench's; measured here it is {value}"
            numbers.notes.append(note)
        found |= {name: Number(value) for name, value in theirs.items()}
        ordered = {name: found[name] for name in DIMENSIONS if name in found}
        numbers.found[label] = with_totals(ordered, list(DIMENSIONS))
    return numbers


def add_fvd(
    numbers: Numbers,
    folders: Sequence[Folder],
    reference: Folder,
    measured: Mapping[str, Measured],
    features: str,
    *,
    few_clips: bool,
    at_infinity: bool,
) -> None:
    """Add the FVD of each folder to the reference.

    Args:
        numbers: Gets them; a folder with too few clips gets a problem instead.
        folders: Whose FVD it is.
        reference: The real clips.
        measured: By label.
        features: On which of `FEATURES`.
        few_clips: Go on with fewer clips than there are features.
        at_infinity: Extrapolate to infinitely many clips too.
    """
    name = FVD[features]
    for folder in folders:
        try:
            sides = [_features(side, measured, features) for side in (folder, reference)]
            for side, values in zip((folder, reference), sides, strict=True):
                notes = _check(name, side.label, values, few_clips)
                numbers.notes += [note for note in notes if note not in numbers.notes]
        except ConfigError as error:
            numbers.problems.append(f"{name} of {folder.label} is not measured: {error}")
            continue
        logger.info("%s of %s: resampling its clips", name, folder.label)
        units = [_units(side, measured, features) for side in (folder, reference)]
        interval = frechet.bootstrap(*sides, clusters=(units[0], units[1]))
        numbers.found[folder.label][name] = Number(interval.mean, interval)
        if not at_infinity:
            continue
        beyond = name + AT_INFINITY
        if (line := frechet.extrapolate(*sides)) is None:
            text = "too few clips for a line through subsets"
            numbers.problems.append(f"{beyond} of {folder.label} is not measured: {text}")
        else:
            numbers.found[folder.label][beyond] = Number(line.at_infinity)


def computed_by(
    measures: Sequence[Measure],
    published: Mapping[str, Mapping[str, float]],
    labels: Sequence[str],
) -> dict[str, str]:
    """Return what computes each measure, by name; of features, what is computed from them.

    Args:
        measures: What is measured of clips.
        published: What the `vbench` package wrote, by label; it goes before what is measured.
        labels: Of all folders.
    """
    found: dict[str, str] = {}
    for measure in measures:
        names = [measure.name]
        if measure.name in FEATURES:
            names = [FVD[measure.name], FVD[measure.name] + AT_INFINITY]
            names += [DIVERSITY] if measure.name == VIDEO_MAE else []
        found |= dict.fromkeys(names, measure.computed_by)
    for name in dict.fromkeys(name for values in published.values() for name in values):
        having = [label for label in labels if name in published.get(label, {})]
        theirs = "vbench, as its results that were given say"
        if len(having) < len(labels):
            theirs += f" (of {', '.join(having)})"
            theirs += f"; else {found[name]}" if name in found else ""
        found[name] = theirs
    return found


def _check(name: str, label: str, values: frechet.Matrix, few_clips: bool) -> list[str]:
    """Return a note where there are too few clips, and they may be."""
    try:
        frechet.check_number(label, *values.shape)
    except ConfigError:
        if not few_clips or len(values) < 2:
            raise
        text = f"{len(values)} clips are too few for {values.shape[1]} features"
        return [f"{name} of {label}: {text}"]
    return []


def _units(folder: Folder, measured: Mapping[str, Measured], features: str) -> list[str]:
    """Return the prompt of each row of `_features`."""
    values = measured[folder.label].values.get(features, {})
    return [folder.unit(key) for key in folder.keys if key in values]


def _features(folder: Folder, measured: Mapping[str, Measured], features: str) -> frechet.Matrix:
    values = measured[folder.label].values.get(features, {})
    if not values:
        found = list(measured[folder.label].problems.values())  # may be those of other measures
        why = [said for said in found if f": {features}: " in said] or found or [""]
        raise ConfigError(f"{folder.label} has no clip with features: {why[0]}")
    return np.stack([values[key] for key in folder.keys if key in values]).astype(np.float64)

"""Numbers of `videorl measure` that others made: scores of reward models, results of VBench."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.data.score_reading import ScoredClips
    from videorl.measures.folders import Folder
    from videorl.measures.measuring import Measured
    from videorl.measures.win_rates import WinRate

_SHOWN = 3
Models = dict[str, dict[int, "ScoredClips"]]
"""Label of a reward model -> number of a folder -> its scores."""


def lost(measured: Mapping[str, Measured]) -> list[str]:
    """Return a sentence per folder on the clips that lack a number."""
    return [
        f"{label}: {len(found.problems)} clips lack a number: "
        + "; ".join(list(found.problems.values())[:_SHOWN])
        for label, found in measured.items()
        if found.problems
    ]


def _given(texts: Sequence[str], option: str, labels: Sequence[str]) -> list[tuple[int, Path]]:
    """Return (number of the folder, file) of `NAME=FILE`."""
    found: list[tuple[int, Path]] = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or name not in labels:
            names = ", ".join(labels)
            raise ConfigError(f"{option} must be NAME=FILE with a name of {names}, got {text!r}")
        found.append((labels.index(name), Path(path).expanduser()))
    return found


def published(options: argparse.Namespace, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return what the `vbench` package wrote, by label.

    Raises:
        ConfigError: A file cannot be read, or a folder has a dimension twice.
    """
    from videorl.measures.vbench import read_results

    found: dict[str, dict[str, float]] = {}
    for number, path in _given(options.vbench, "--vbench", labels):
        mine = found.setdefault(labels[number], {})
        for name, value in read_results(path).items():
            if name in mine:
                raise ConfigError(f"--vbench: {labels[number]} has {name} twice, see {path}")
            mine[name] = value
    return found


def read_models(
    options: argparse.Namespace,
    labels: Sequence[str],
    scored_here: Mapping[tuple[str, str], Path],
) -> Models:
    """Return the scores that were given, and those of `--reward`.

    Raises:
        ConfigError: Two files are of one folder and model; or a model that was given scored the
            first folder only, or not that.
        DatasetError: A file cannot be read.
    """
    from videorl.data.score_reading import read_scores

    models: Models = {}
    for number, path in _given(options.scores, "--scores", labels):
        scored = read_scores(path)
        if number in models.setdefault(scored.label, {}):
            raise ConfigError(f"--scores: two files of {labels[number]} and {scored.label}")
        models[scored.label][number] = scored
    for label, found in models.items():
        if 0 not in found or len(found) < 2:
            names = ", ".join(labels[number] for number in found)
            raise ConfigError(
                f"--scores: {label} scored {names}; win rates need scores of {labels[0]}, "
                "the first folder, and of another"
            )
    for (label, _), path in scored_here.items():
        scored = read_scores(path)
        models.setdefault(scored.label, {})[labels.index(label)] = scored
    return models


def rates(models: Models, folders: Sequence[Folder], tie: float) -> list[WinRate]:
    """Return the win rates of every other folder against the first, under every model."""
    from videorl.measures.win_rates import win_rates

    found: list[WinRate] = []
    for scored in models.values():
        for number in sorted(scored.keys() - {0}):
            pair = ((folders[n], scored[n]) for n in (0, number))
            found += win_rates(*pair, tie=tie)
    return found


def add_to(measured: dict[str, Measured], models: Models, folders: Sequence[Folder]) -> list[str]:
    """Add the scores of every clip to what was measured of it, as `MODEL DIMENSION`.

    Returns:
        A sentence per model and folder on the clips that have no score.
    """
    import numpy as np

    from videorl.measures.measuring import Measured
    from videorl.types import Score

    notes: list[str] = []
    for model, by_folder in models.items():
        for number, scored in by_folder.items():
            folder, without = folders[number], list[str]()
            values = measured.setdefault(folder.label, Measured()).values
            for key in folder.keys:
                if isinstance(score := scored.of(key), Score):
                    # Of a single dimension the total says the same.
                    own = score.dimensions if len(score.dimensions) > 1 else {}
                    for name, value in {**own, "total": score.total}.items():
                        values[f"{model} {name}"][key] = np.array([value])
                else:
                    without.append(score)
            if without:
                said = f"{model} has no score of {len(without)} clips of {folder.label}"
                notes.append(f"{said}, first: {without[0]}")
    return notes

"""Which measures `videorl measure` takes of every clip, and why others are left out."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.measuring.options import DIVERSITY, FVD, FVD_I3D, MOTION, MOVED_LIGHT
from videorl.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from videorl.measures.measuring import Features, Measure


def chosen_measures(
    options: argparse.Namespace,
    labels: Sequence[str],
    published: Mapping[str, Mapping[str, float]],
) -> tuple[list[Measure], list[str]]:
    """Return what can be measured, and sentences on what cannot.

    Raises:
        ConfigError: Nothing can, and there is nothing else to tell.
    """
    from videorl.measures.measuring import Flickering, MotionMagnitude, MovedLight

    measures: list[Measure] = []
    notes: list[str] = []
    metrics = list(dict.fromkeys(options.metric))
    if FVD in metrics or DIVERSITY in metrics:
        _add(measures, notes, lambda: _video_mae(options))
    for metric in metrics:
        if metric == FVD_I3D:
            _add(measures, notes, lambda: _i3d(options))
        elif metric == "temporal_flickering":
            measures.append(Flickering())
        elif metric == MOVED_LIGHT:
            measures.append(MovedLight())
        elif metric == MOTION:
            _add(measures, notes, lambda: _opencv(MotionMagnitude))
        elif metric not in (FVD, DIVERSITY):
            name = metric.replace("_", " ")
            # The package's own numbers may be there of every folder.
            if not all(name in published.get(label, {}) for label in labels):
                _add(measures, notes, lambda name=name: _vbench(name, options))
    has_scores = options.scores or options.reward or options.rewards
    if not measures and not published and not has_scores:
        raise ConfigError("nothing can be measured: " + "; ".join(notes))
    return measures, notes


def fvd_features(options: argparse.Namespace, measures: Sequence[Measure]) -> list[Features]:
    """Return the features from which an FVD that was asked for is computed."""
    from videorl.measures.measuring import I3D, VIDEO_MAE, Features

    asked = {VIDEO_MAE: FVD in options.metric, I3D: FVD_I3D in options.metric}
    return [found for found in measures if isinstance(found, Features) and asked[found.name]]


def _opencv(make: Callable[[], Measure]) -> Measure:
    try:
        return make()
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _add(measures: list[Measure], notes: list[str], make: Callable[[], Measure]) -> None:
    try:
        measures.append(make())
    except CheckpointError as error:
        notes.append(str(error))


def _video_mae(options: argparse.Namespace) -> Measure:
    from videorl.measures.measuring import VIDEO_MAE, Features
    from videorl.measures.video_mae import VideoMAEFeatures

    try:
        network = VideoMAEFeatures(options.video_mae, options.device)
    except CheckpointError as error:
        names = " and ".join(name for name in (FVD, DIVERSITY) if name in options.metric)
        raise CheckpointError(f"{names}: not measured: {error}") from error
    return Features(VIDEO_MAE, network, options.frame_step)


def _i3d(options: argparse.Namespace) -> Measure:
    from videorl.measures.i3d import I3DFeatures
    from videorl.measures.measuring import I3D, Features

    try:
        network = I3DFeatures(options.i3d, options.device)
    except CheckpointError as error:
        raise CheckpointError(f"{FVD_I3D}: not measured: {error}") from error
    return Features(I3D, network, options.frame_step)


def _vbench(name: str, options: argparse.Namespace) -> Measure:
    """Load a dimension of VBench."""
    from videorl.measures.vbench import IN_PACKAGE, why_absent
    from videorl.measures.vbench_networks import load_dimension
    from videorl.measures.vbench_package import PYTHON, load_package_dimension

    python = options.vbench_python or os.environ.get(PYTHON)
    if name in IN_PACKAGE and not python:
        raise CheckpointError(why_absent(name))
    try:
        if name in IN_PACKAGE:
            return load_package_dimension(name, str(python), options.device)
        return load_dimension(name, _places(options), options.device)
    except CheckpointError as error:
        raise CheckpointError(f"{name} is not measured: {error}") from error


def _places(options: argparse.Namespace) -> dict[str, str]:
    """Return what `--vbench-model` names."""
    from videorl.measures.vbench_networks import PLACES

    found: dict[str, str] = {}
    for text in options.vbench_model:
        name, _, place = text.partition("=")
        if name not in PLACES or not place:
            raise ConfigError(
                f"--vbench-model must be NAME=PLACE, NAME of {', '.join(PLACES)}, got {text!r}"
            )
        found[name] = place
    return found

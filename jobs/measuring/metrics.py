"""Which measures `videorl measure` takes of every clip, and why others are left out."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs.measuring.options import DIVERSITY, FVD, FVD_I3D, MOTION, MOVED_LIGHT
from videorl.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from videorl.measures.measuring import Measure

_NO_I3D = (
    "fvd_i3d is not measured here: I3D and its weights for Kinetics-400 are in no package that is "
    "kept up; run the `cd-fvd` package (model i3d) in an environment of its own"
)


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
        _add_features(options, measures, notes)
    for metric in metrics:
        if metric == FVD_I3D:
            notes.append(_NO_I3D)
        elif metric == "temporal_flickering":
            measures.append(Flickering())
        elif metric == MOVED_LIGHT:
            measures.append(MovedLight())
        elif metric == MOTION:
            _add(measures, notes, MotionMagnitude)
        elif metric not in (FVD, DIVERSITY):
            _add_vbench(metric.replace("_", " "), options, measures, notes, labels, published)
    has_scores = options.scores or options.reward or options.rewards
    if not measures and not published and not has_scores:
        raise ConfigError("nothing can be measured: " + "; ".join(notes))
    return measures, notes


def _add(measures: list[Measure], notes: list[str], make: type[Measure]) -> None:
    try:
        measures.append(make())
    except ConfigError as error:
        notes.append(str(error))


def _add_features(options: argparse.Namespace, measures: list[Measure], notes: list[str]) -> None:
    from videorl.measures.measuring import Features
    from videorl.measures.video_mae import VideoMAEFeatures

    try:
        network = VideoMAEFeatures(options.video_mae, options.device)
        measures.append(Features(network, options.frame_step))
    except CheckpointError as error:
        names = " and ".join(name for name in (FVD, DIVERSITY) if name in options.metric)
        notes.append(f"{names}: not measured: {error}")


def _add_vbench(
    name: str,
    options: argparse.Namespace,
    measures: list[Measure],
    notes: list[str],
    labels: Sequence[str],
    published: Mapping[str, Mapping[str, float]],
) -> None:
    """Add a dimension of VBench, unless the package's own number is there of every folder."""
    from videorl.measures.vbench import why_absent
    from videorl.measures.vbench_networks import NETWORKS, load_dimension

    if all(name in published.get(label, {}) for label in labels):
        return
    if name not in NETWORKS:
        notes.append(why_absent(name))
        return
    try:
        measures.append(load_dimension(name, _places(options), options.device))
    except CheckpointError as error:
        notes.append(f"{name} is not measured: {error}")


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

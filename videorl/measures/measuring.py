"""Measure every clip of some folders once, a clip at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from videorl.data.clips import Clip, Key
from videorl.errors import VideoError
from videorl.evaluation.unseen import dynamic_degree, luma
from videorl.measures.flickering import temporal_flickering
from videorl.measures.folders import Folder, digest, opened
from videorl.measures.motion import check_opencv, motion_magnitude
from videorl.measures.shapes import Shape, View, check_equal, shape_of, smallest
from videorl.measures.store import Store, Values
from videorl.measures.video_mae import VideoMAEFeatures

FLICKERING, FEATURES = "temporal flickering", "features"
MOTION, MOVED_LIGHT = "motion magnitude", "moved light"
_SHAPE = "shape"
Done = Callable[[int], None]
"""Is told how many clips are done."""


class Measure(Protocol):
    """What is measured of a clip by itself."""

    name: str
    settings: str
    """All that its numbers depend on besides the clip."""

    def of(self, view: View) -> Values:
        """Return one or more numbers; raises VideoError if the clip has none."""
        ...


class Flickering:
    """VBench's temporal flickering."""

    name, settings = FLICKERING, ""

    def of(self, view: View) -> Values:
        """See `Measure.of`."""
        return np.array([temporal_flickering(view.parts())])


class MotionMagnitude:
    """Mean length of the optical flow; raises ConfigError without OpenCV."""

    name = MOTION

    def __init__(self) -> None:
        check_opencv()
        import cv2

        self.settings = f"DIS medium, OpenCV {cv2.__version__}"

    def of(self, view: View) -> Values:
        """See `Measure.of`."""
        return np.array([motion_magnitude(view.parts())])


class MovedLight:
    """The dynamic degree of reports, `videorl.evaluation.unseen.dynamic_degree`."""

    name, settings = MOVED_LIGHT, ""

    def of(self, view: View) -> Values:
        """See `Measure.of`."""
        luma_FHW = np.concatenate([luma(part) for part in view.parts()])
        return np.array([dynamic_degree(luma_FHW)])


class Features:
    """The vector of a clip from which FVD is computed."""

    name = FEATURES

    def __init__(self, network: VideoMAEFeatures, step: int) -> None:
        self._network, self._step = network, step
        self.size = network.size
        self.settings = f"{network.digest} step {step}"

    def of(self, view: View) -> Values:
        """See `Measure.of`."""
        return self._network.of(view.first(self._network.num_frames, self._step))


@dataclass
class Measured:
    """What was measured of the clips of a folder."""

    values: dict[str, dict[Key, Values]] = field(default_factory=lambda: defaultdict(dict))
    """Name of the measure -> clip -> finite numbers."""
    problems: dict[Key, str] = field(default_factory=dict[Key, str])
    """Why a clip lacks a number; the first reason."""


class _Survey:
    """Hashes and shapes of all clips that can be read."""

    def __init__(self) -> None:
        self.digests: dict[tuple[str, Key], str] = {}
        self.shapes: dict[tuple[str, Key], Shape] = {}

    def named(self) -> dict[str, Shape]:
        """Return the shapes by names for people."""
        return {f"{label}/{key[0]}": shape for (label, key), shape in self.shapes.items()}


def measure_clips(
    folders: Sequence[Folder],
    measures: Mapping[str, Sequence[Measure]],
    store: Store,
    done: Done,
    *,
    resample: bool = False,
) -> dict[str, Measured]:
    """Return what was measured, by label; clips that `store` has are not decoded again.

    Args:
        folders: Whose clips are measured.
        measures: What of, by the folder's label.
        store: Gets every number as soon as it is there.
        done: Is called with the number of clips that are done, twice that of all at the end: they
            are opened first, to compare their shapes.
        resample: Cut all clips to one shape instead of refusing those that differ.

    Raises:
        ConfigError: Clips have different shapes, and `resample` is not set.
    """
    found = {folder.label: Measured() for folder in folders}
    survey, count = _Survey(), 0
    for folder, clip in _all(folders):
        try:
            _look(folder, clip, survey, store)
        except VideoError as error:
            found[folder.label].problems[clip.key] = str(error)
        count += 1
        done(count)
    target = None
    if survey.shapes and not resample:
        check_equal(survey.named())
    elif survey.shapes:
        target = smallest(list(survey.shapes.values()))
    for folder, clip in _all(folders):
        key = (folder.label, clip.key)
        if key in survey.shapes:
            # A clip that has the common shape already is the same with and without --resample.
            cut = None if target is None or survey.shapes[key].equals(target) else target
            asked = measures[folder.label]
            _measure(clip, survey.digests[key], cut, asked, store, found[folder.label])
        count += 1
        done(count)
    return found


def _all(folders: Sequence[Folder]) -> Iterator[tuple[Folder, Clip]]:
    for folder in folders:
        for clip in folder.clips(set(folder.keys)):
            yield folder, clip


def _look(folder: Folder, clip: Clip, survey: _Survey, store: Store) -> None:
    key, name = (folder.label, clip.key), digest(clip)
    values = store.get(name, _SHAPE)
    if values is None:
        with opened(clip) as frames:
            shape = shape_of(frames)
        values = np.array([shape.num_frames, shape.fps, shape.height, shape.width])
        store.add(name, _SHAPE, values)
    num_frames, fps, height, width = map(float, values)
    survey.digests[key] = name
    survey.shapes[key] = Shape(int(num_frames), fps, int(height), int(width))


def _measure(
    clip: Clip,
    name: str,
    target: Shape | None,
    measures: Sequence[Measure],
    store: Store,
    found: Measured,
) -> None:
    """Put the numbers of a clip, or why it lacks them, into `found`."""
    asked = {measure: f"{measure.name}|{measure.settings}|{target or ''}" for measure in measures}
    left = [measure for measure in measures if store.get(name, asked[measure]) is None]
    if left:
        try:
            with opened(clip) as frames:
                view = View(frames, target)
                for measure in left:
                    _take(clip, measure, view, store, (name, asked[measure]), found)
        except VideoError as error:
            found.problems.setdefault(clip.key, str(error))
    for measure in measures:
        values = store.get(name, asked[measure])
        if values is not None:
            found.values[measure.name][clip.key] = values


def _take(
    clip: Clip,
    measure: Measure,
    view: View,
    store: Store,
    place: tuple[str, str],
    found: Measured,
) -> None:
    try:
        values = measure.of(view)
    except VideoError as error:
        found.problems.setdefault(clip.key, f"{clip.id}: {measure.name}: {error}")
        return
    bad = sum(not math.isfinite(value) for value in values)
    if bad:
        reason = f"{clip.id}: {measure.name}: {bad} of {len(values)} numbers are NaN or infinite"
        found.problems.setdefault(clip.key, reason)
    else:
        store.add(*place, values)

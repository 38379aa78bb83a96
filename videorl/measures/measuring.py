"""Measure every clip of some folders once, a clip at a time."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from videorl.data.clips import Clip, Key
from videorl.errors import VideoError
from videorl.evaluation.unseen import dynamic_degree, luma
from videorl.measures.flickering import temporal_flickering
from videorl.measures.folders import Folder, digest, opened
from videorl.measures.motion import check_opencv, motion_magnitude
from videorl.measures.shapes import Shape, View, check_equal, shape_of, smallest
from videorl.measures.store import Store, Values

FLICKERING = "temporal flickering"
VIDEO_MAE, I3D = "features", "features (I3D)"
FEATURES = (VIDEO_MAE, I3D)
"""Measures that are vectors, from which FVD and diversity are computed."""
HERE = "videorl"
MOTION, MOVED_LIGHT = "motion magnitude", "moved light"
_SHAPE = "shape"
_AHEAD = 2
"""Clips per thread that are under way, or wait to be written down."""
Done = Callable[[int], None]
"""Is told how many clips are done."""


class Measure(Protocol):
    """What is measured of a clip by itself."""

    name: str
    settings: str
    """All that its numbers depend on besides the clip."""
    computed_by: str
    """What computes it, for people."""

    def of(self, view: View) -> Values:
        """Return one or more numbers; raises VideoError if the clip has none."""
        ...


@runtime_checkable
class Closing(Protocol):
    """A measure that waits for a process."""

    def close(self) -> None:
        """End the waiting of every thread; no clip has a number afterwards."""
        ...


class Flickering:
    """VBench's temporal flickering."""

    name, settings, computed_by = FLICKERING, "", HERE

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
        self.computed_by = f"OpenCV {cv2.__version__}, DIS"

    def of(self, view: View) -> Values:
        """See `Measure.of`."""
        return np.array([motion_magnitude(view.parts())])


class MovedLight:
    """The dynamic degree of reports, `videorl.evaluation.unseen.dynamic_degree`."""

    name, settings, computed_by = MOVED_LIGHT, "", HERE

    def of(self, view: View) -> Values:
        """See `Measure.of`."""
        luma_FHW = np.concatenate([luma(part) for part in view.parts()])
        return np.array([dynamic_degree(luma_FHW)])


class Network(Protocol):
    """A network that turns the first frames of a clip into a vector."""

    name: str
    num_frames: int
    size: int
    """D."""
    digest: str

    def of(self, frames_FHW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the feature [D] of `num_frames` frames, RGB uint8 [F, H, W, 3]."""
        ...


class Features:
    """The vector of a clip from which FVD is computed."""

    def __init__(self, name: str, network: Network, step: int) -> None:
        """Measure with a network.

        Args:
            name: Of `FEATURES`.
            network: What makes the vectors.
            step: Every so many frames are read.
        """
        self.name, self._network, self._step = name, network, step
        self.size = network.size
        self.settings = f"{network.digest} step {step}"
        self.computed_by = f"{HERE}, on {network.name}"

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
    digests: dict[Key, str] = field(default_factory=dict[Key, str])
    """What each clip that can be read shows, wherever it lies."""
    shape: str = ""
    """What the clips that can be read are measured at, and whether any is cut to that."""


class _Survey:
    """Hashes and shapes of all clips that can be read."""

    def __init__(self) -> None:
        self.digests: dict[tuple[str, Key], str] = {}
        self.shapes: dict[tuple[str, Key], Shape] = {}

    def named(self) -> dict[str, Shape]:
        """Return the shapes by names for people."""
        return {f"{label}/{key[0]}": shape for (label, key), shape in self.shapes.items()}

    def tell(self, label: str, target: Shape | None, measured: Measured) -> None:
        """Note what the clips of a folder show, and what they are measured at."""
        shapes = {key: shape for (its, key), shape in self.shapes.items() if its == label}
        measured.digests = {key: self.digests[label, key] for key in shapes}
        if shapes:
            is_cut = any(_cut(shape, target) for shape in shapes.values())
            measured.shape = f"{target or next(iter(shapes.values()))}{', cut' if is_cut else ''}"


def measure_clips(
    folders: Sequence[Folder],
    measures: Mapping[str, Sequence[Measure]],
    store: Store,
    done: Done,
    *,
    resample: bool = False,
    workers: int = 1,
) -> dict[str, Measured]:
    """Return what was measured, by label; clips that `store` has are not decoded again.

    Args:
        folders: Whose clips are measured.
        measures: What of, by the folder's label.
        store: Gets every number as soon as it is there.
        done: Is called with the number of clips that are done, at most twice that of all: they are
            opened first, to compare their shapes.
        resample: Cut all clips to one shape instead of refusing those that differ.
        workers: Threads that decode and measure (>= 1); results do not depend on it. If they are
            stopped, each goes on to the end of its clip, but for measures that can be closed.

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
    for folder in folders:
        survey.tell(folder.label, target, found[folder.label])
    tasks = (
        _Task(clip, survey.digests[key], _cut(survey.shapes[key], target), folder.label)
        for folder, clip in _all(folders)
        if (key := (folder.label, clip.key)) in survey.shapes
    )
    for task, computed in _in_order(tasks, measures, store, workers):
        _keep(task, measures[task.label], computed, store, found[task.label])
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


@dataclass(frozen=True)
class _Task:
    """A clip to be measured."""

    clip: Clip
    digest: str
    target: Shape | None
    label: str

    def stored(self, measure: Measure) -> tuple[str, str]:
        """Return the name of a measure of this clip in the store."""
        return self.digest, f"{measure.name}|{measure.settings}|{self.target or ''}"


_Computed = list[tuple[Measure, Values | str]]
"""Numbers of a measure, or why there are none."""


def _cut(shape: Shape, target: Shape | None) -> Shape | None:
    """Return what a clip is cut to: nothing if it has that shape, with and without --resample."""
    return None if target is None or shape.equals(target) else target


def _in_order(
    tasks: Iterator[_Task], measures: Mapping[str, Sequence[Measure]], store: Store, workers: int
) -> Iterator[tuple[_Task, _Computed]]:
    """Yield what each clip lacks, a bounded number of clips ahead, on so many threads."""

    def left(task: _Task) -> list[Measure]:
        return [m for m in measures[task.label] if store.get(*task.stored(m)) is None]

    if workers == 1:
        for task in tasks:
            yield task, _compute(task, left(task))
        return
    pending: deque[tuple[_Task, Future[_Computed]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for task in tasks:
                pending.append((task, pool.submit(_compute, task, left(task))))
                if len(pending) >= _AHEAD * workers:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        except BaseException:  # the pool waits for threads, and these may wait for processes
            _close(measures)
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _close(measures: Mapping[str, Sequence[Measure]]) -> None:
    for measure in {id(found): found for each in measures.values() for found in each}.values():
        if isinstance(measure, Closing):
            measure.close()


def _compute(task: _Task, left: Sequence[Measure]) -> _Computed:
    if not left:
        return []
    try:
        with opened(task.clip) as frames:
            view = View(frames, task.target)
            return [(measure, _taken(task.clip, measure, view)) for measure in left]
    except VideoError as error:
        return [(left[0], str(error))]


def _taken(clip: Clip, measure: Measure, view: View) -> Values | str:
    try:
        values = measure.of(view)
    except VideoError as error:
        return f"{clip.id}: {measure.name}: {error}"
    if bad := sum(not math.isfinite(value) for value in values):
        return f"{clip.id}: {measure.name}: {bad} of {len(values)} numbers are NaN or infinite"
    return values


def _keep(
    task: _Task, measures: Sequence[Measure], computed: _Computed, store: Store, found: Measured
) -> None:
    """Put the numbers of a clip, or why it lacks them, into `found`."""
    for measure, values in computed:
        if isinstance(values, str):
            found.problems.setdefault(task.clip.key, values)
        else:
            store.add(*task.stored(measure), values)
    for measure in measures:
        if (values := store.get(*task.stored(measure))) is not None:
            found.values[measure.name][task.clip.key] = values

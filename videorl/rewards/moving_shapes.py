"""The reward of Moving Shapes, measured from pixels alone.

Every measurement is a smooth function of the pixels: two different clips hardly ever tie, and a
slightly better clip scores slightly more. Each dimension is in [-1, 1].

Axes: N clips, F frames, H×W pixels. Positions are (x, y) in pixels, y downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from videorl.errors import VideoError
from videorl.rewards.videos import OpenVideo, VideoSource, check_prompts, open_videos
from videorl.types import Score
from videorl.worlds.grammar import COLOURS, MOTIONS, SHAPES, SIZES, Scene, parse

Array: TypeAlias = npt.NDArray[np.float32]

MIN_FRAMES = 3
"""Any two positions are on a straight path: fewer frames cannot be judged."""
MAX_PIXELS = 2**26
"""Of all frames together that are measured at once, in floats of about 3 GiB."""
FOREGROUND_LEVEL = 0.12
"""Brightness in [0, 1] above which a pixel starts to count as object."""
VISIBLE_MASS_PX = 12.0
"""Object area in pixels at which a frame counts as 63 % visible; the smallest object has 38."""
OBJECT_OVERLAP = 0.45
"""Overlap with the best template at which light counts as 63 % object; a blank has 0.23."""
FLICKER_SCALE = 0.10
"""Relative brightness change between frames that costs 34 % of the steadiness."""
CLUTTER_SCALE = 0.03
"""Mean background brightness error that costs 34 % of the cleanliness."""
JITTER_SCALE_PX = 0.7
"""Deviation from a straight path at constant speed that costs 34 % of the smoothness."""
SPEED_SCALE_PX = 0.5
"""Pixels per frame at which an object counts as 63 % moving."""
COLOUR_SCALE = 0.35
"""RGB distance from the wanted colour that costs 63 % of the colour score."""
SHAPE_TEMPERATURE = 0.05
"""Softmax temperature over the overlap with each template."""
TEXT_WEIGHTS = {"colour": 0.4, "direction": 0.4, "shape": 0.1, "size": 0.1}
_CROP_PX = 23


@dataclass(frozen=True, slots=True)
class _Measured:
    """Measurements of the pixels, a row per clip."""

    visible_N: Array
    """Share of the frames that show any light, in [0, 1]."""
    flicker_N: Array
    clutter_N: Array
    jitter_px_N: Array
    velocity_N2: Array
    colour_N3: Array
    """Mean RGB of the object, its peak scaled to that of the palette."""
    overlap_NM: Array
    """Overlap in [0, 1] of the mean object with each (shape, size) template."""


class MovingShapesReward:
    """Scores clips of Moving Shapes prompts; stateless, deterministic, on the CPU."""

    dimensions = ("visual_quality", "motion_quality", "text_alignment")

    def score(self, videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[Score]:
        """Score each video against its prompt; `total` is the sum of the three dimensions.

        Raises:
            PromptError: A prompt is outside of the grammar.
            VideoError: The numbers of videos and prompts differ, or a video cannot be scored, for
                which it needs three frames, and at most `MAX_PIXELS`.
        """
        opened = open_videos(videos, prompts)
        check_prompts(prompts, ())
        scenes = [parse(text) for text in prompts]
        clips = [_read(video) for video in opened]
        scores: list[Score | None] = [None] * len(videos)
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for index, frames in enumerate(clips):
            by_shape.setdefault(frames.shape, []).append(index)
        for (num_frames, height, width, _), alike in by_shape.items():
            at_once = max(MAX_PIXELS // (num_frames * height * width), 1)
            for first in range(0, len(alike), at_once):
                indices = alike[first : first + at_once]
                frames = np.stack([clips[index] for index in indices])
                measured = _measure(frames.astype(np.float32) / 255.0)
                judged = _judge(measured, [scenes[index] for index in indices])
                for index, score in zip(indices, judged, strict=True):
                    scores[index] = score
        return [score for score in scores if score is not None]


def _read(video: OpenVideo) -> npt.NDArray[np.uint8]:
    if video.num_frames < MIN_FRAMES:
        raise VideoError(
            f"{video.name}: holds {video.num_frames} frame(s), at least {MIN_FRAMES} are needed"
        )
    _, height, width, _ = video.read([0]).shape
    if video.num_frames * height * width > MAX_PIXELS:
        raise VideoError(
            f"{video.name}: {video.num_frames} frames of {width}×{height} pixels are too many for "
            f"Moving Shapes, which measures {MAX_PIXELS / 1e6:.0f} million pixels at most; cut it"
        )
    return video.read(range(video.num_frames))


def _measure(frames_NFHW3: Array) -> _Measured:
    value_NFHW = frames_NFHW3.max(axis=-1)
    weight_NFHW = np.maximum(value_NFHW - FOREGROUND_LEVEL, 0.0)
    sum_NF = weight_NFHW.sum(axis=(2, 3)) + 1e-6
    brightness_NF = (weight_NFHW * value_NFHW).sum(axis=(2, 3)) / sum_NF
    area_NF = sum_NF / np.maximum(brightness_NF - FOREGROUND_LEVEL, 0.05)
    visible_NF = 1.0 - np.exp(-((area_NF / VISIBLE_MASS_PX) ** 2))
    centres_NF2 = _centroids(weight_NFHW, sum_NF)
    velocity_N2, residual_NF2 = _straight_path(centres_NF2)
    object_NHW = _mean_object(weight_NFHW / sum_NF[..., None, None], centres_NF2)
    colour_N3 = np.einsum("nfhw,nfhwc->nc", weight_NFHW, frames_NFHW3, optimize=True)
    peak = max(max(colour) for colour in COLOURS.values())
    return _Measured(
        visible_N=visible_NF.mean(axis=1),
        flicker_N=_flicker(brightness_NF, sum_NF),
        clutter_N=_clutter(value_NFHW, centres_NF2),
        jitter_px_N=np.sqrt((residual_NF2**2).sum(axis=2).mean(axis=1)),
        velocity_N2=velocity_N2,
        colour_N3=colour_N3 * (peak / np.maximum(colour_N3.max(axis=1, keepdims=True), 1e-6)),
        overlap_NM=_overlaps(object_NHW),
    )


def _centroids(weight_NFHW: Array, sum_NF: Array) -> Array:
    height, width = weight_NFHW.shape[2:]
    x_NF = weight_NFHW.sum(axis=2) @ np.arange(width, dtype=np.float32) / sum_NF
    y_NF = weight_NFHW.sum(axis=3) @ np.arange(height, dtype=np.float32) / sum_NF
    return np.stack([x_NF, y_NF], axis=-1)


def _straight_path(centres_NF2: Array) -> tuple[Array, Array]:
    """Return the least-squares velocity [N, 2] (px per frame) and the residuals [N, F, 2]."""
    times_F = np.arange(centres_NF2.shape[1], dtype=np.float32)
    times_F -= times_F.mean()
    centred = centres_NF2 - centres_NF2.mean(axis=1, keepdims=True)
    velocity_N2 = np.einsum("f,nfd->nd", times_F, centred) / (times_F**2).sum()
    return velocity_N2, centred - times_F[None, :, None] * velocity_N2[:, None]


def _flicker(brightness_NF: Array, sum_NF: Array) -> Array:
    """Return the relative spread of brightness over frames, plus half that of the mass."""
    spread_N = brightness_NF.std(axis=1) / (brightness_NF.mean(axis=1) + 1e-6)
    mass_spread_N = sum_NF.std(axis=1) / (sum_NF.mean(axis=1) + 1e-6)
    return spread_N + 0.5 * mass_spread_N


def _clutter(value_NFHW: Array, centres_NF2: Array) -> Array:
    """Return the mean brightness above the foreground level outside of the object's disc."""
    height, width = value_NFHW.shape[2:]
    dx = np.arange(width)[None, None, None, :] - centres_NF2[:, :, 0, None, None]
    dy = np.arange(height)[None, None, :, None] - centres_NF2[:, :, 1, None, None]
    outside = (dx**2 + dy**2) > 10.0**2
    stray = np.maximum(value_NFHW - FOREGROUND_LEVEL, 0.0) * outside
    return stray.sum(axis=(1, 2, 3)) / (outside.sum(axis=(1, 2, 3)) + 1e-6)


def _mean_object(mass_NFHW: Array, centres_NF2: Array) -> Array:
    """Return the mean of frames resampled (bilinear) around their centroids, [N, CROP, CROP]."""
    height, width = mass_NFHW.shape[2:]
    offsets = np.arange(_CROP_PX, dtype=np.float32) - _CROP_PX // 2
    x_NFC = centres_NF2[..., 0, None] + offsets
    y_NFC = centres_NF2[..., 1, None] + offsets
    pull_x = np.maximum(1.0 - np.abs(x_NFC[..., None] - np.arange(width)), 0.0)
    pull_y = np.maximum(1.0 - np.abs(y_NFC[..., None] - np.arange(height)), 0.0)
    return (pull_y @ mass_NFHW @ pull_x.swapaxes(-1, -2)).mean(axis=1)


def _overlaps(object_NHW: Array) -> Array:
    """Return the histogram intersection of each mean object with each template, both of mass 1."""
    mass_NHW = object_NHW / (object_NHW.sum(axis=(1, 2), keepdims=True) + 1e-6)
    return np.minimum(mass_NHW[:, None], _templates()[None]).sum(axis=(2, 3))


@lru_cache(maxsize=1)
def _templates() -> Array:
    """Return clean objects of mass 1, by shape and then by size: [M, CROP, CROP]."""
    from videorl.worlds.moving_shapes import NUM_FRAMES, film

    masses = []
    for shape in SHAPES:
        for size in SIZES:
            scene = Scene(size, "white", shape, "left")
            # Between pixels, so that resampling blurs templates as much as clips.
            path = np.linspace(15.0, 16.0, NUM_FRAMES)[:, None].repeat(2, axis=1)
            frames = film(scene, path, np.ones(NUM_FRAMES)).frames[None].astype(np.float32) / 255.0
            weight = np.maximum(frames.max(axis=-1) - FOREGROUND_LEVEL, 0.0)
            total = weight.sum(axis=(2, 3))
            centred = _mean_object(weight / total[..., None, None], _centroids(weight, total))[0]
            masses.append(centred / centred.sum())
    return np.stack(masses).astype(np.float32)


def _judge(measured: _Measured, scenes: Sequence[Scene]) -> list[Score]:
    speed_N = np.linalg.norm(measured.velocity_N2, axis=1)
    moving_N = 1.0 - np.exp(-((speed_N / SPEED_SCALE_PX) ** 2))
    steady_N = _decay(measured.flicker_N, FLICKER_SCALE)
    clean_N = _decay(measured.clutter_N, CLUTTER_SCALE)
    smooth_N = _decay(measured.jitter_px_N, JITTER_SCALE_PX)
    intact_N = measured.overlap_NM.max(axis=1)
    visible_N = measured.visible_N * (1.0 - np.exp(-((intact_N / OBJECT_OVERLAP) ** 4)))
    visual_N = _signed(visible_N * intact_N * clean_N * steady_N)
    motion_N = _signed(visible_N * moving_N * smooth_N)
    matches = _matches(measured, scenes, moving_N)
    agreed_N = sum(weight * matches[name] for name, weight in TEXT_WEIGHTS.items())
    text_N = _signed(visible_N * agreed_N)
    raw = {
        "flicker": measured.flicker_N,
        "clutter": measured.clutter_N,
        "jitter_px": measured.jitter_px_N,
        "speed_px": speed_N,
        "intact": intact_N,
        "visible": visible_N,
        **matches,
    }
    return [
        _as_score(visual_N[n], motion_N[n], text_N[n], {k: float(v[n]) for k, v in raw.items()})
        for n in range(len(scenes))
    ]


def _matches(measured: _Measured, scenes: Sequence[Scene], moving_N: Array) -> dict[str, Array]:
    """Return how well each clip matches each part of its prompt, in [0, 1]."""
    wanted_colour = np.array([COLOURS[scene.colour] for scene in scenes])
    distance_N = np.linalg.norm(measured.colour_N3 - wanted_colour, axis=1)
    wanted_way = np.array([MOTIONS[scene.motion] for scene in scenes])
    speed_N = np.linalg.norm(measured.velocity_N2, axis=1) + 1e-6
    cosine_N = (measured.velocity_N2 * wanted_way).sum(axis=1) / speed_N
    logits = measured.overlap_NM / SHAPE_TEMPERATURE
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    odds = (odds / odds.sum(axis=1, keepdims=True)).reshape(len(scenes), len(SHAPES), len(SIZES))
    rows = np.arange(len(scenes))
    return {
        "colour": np.exp(-((distance_N / COLOUR_SCALE) ** 2)),
        "direction": moving_N * (1.0 + cosine_N) / 2.0,
        "shape": odds.sum(axis=2)[rows, [SHAPES.index(scene.shape) for scene in scenes]],
        "size": odds.sum(axis=1)[rows, [list(SIZES).index(scene.size) for scene in scenes]],
    }


def _decay(flaw: Array, scale: float) -> Array:
    """Return 1 for no flaw, 0.66 at `scale`, then towards 0; tiny flaws cost very little."""
    return np.exp(-np.sqrt(1.0 + (flaw / scale) ** 2) + 1.0)


def _signed(quality: Array) -> Array:
    return 2.0 * quality - 1.0


def _as_score(visual: float, motion: float, text: float, raw: dict[str, Any]) -> Score:
    values: dict[str, float] = dict(
        zip(MovingShapesReward.dimensions, (float(visual), float(motion), float(text)), strict=True)
    )
    return Score(dimensions=values, total=sum(values.values()), raw=raw)

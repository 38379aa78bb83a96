"""Moving Shapes: a renderer of soft-edged shapes, and training clips with typical defects.

Clips are 9 frames of 32×32 at 8 frames per second. Pixel positions are (x, y), y downwards, with
the origin at the centre of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from videorl.types import Video
from videorl.worlds.grammar import COLOURS, MOTIONS, SIZES, Scene

NUM_FRAMES = 9
SIZE_PX = 32
FPS = 8.0
BACKGROUND = 0.05
"""Grey level of the background in [0, 1]."""

MIN_SPEED_PX = 1.1
MAX_SPEED_PX = 1.5
"""Pixels per frame: a clip crosses about a third of the picture."""

EDGE_SHARPNESS = 4.0
"""Slope of the soft edge: alpha = sigmoid(-EDGE_SHARPNESS * signed distance in pixels)."""

TIP = 1.4
"""Distance of the outermost point of any shape from its centre, in radii (the triangle's tip)."""


@dataclass(frozen=True, slots=True)
class DefectRates:
    """How much of the training data is flawed, and how badly; defects are drawn independently."""

    flicker: float = 0.8
    """Fraction of clips whose exposure changes from frame to frame."""
    jitter: float = 0.8
    """Fraction of clips whose object trembles around its path."""
    wrong_colour: float = 0.2
    """Fraction of clips whose object has a colour other than the text says."""
    wrong_direction: float = 0.2
    """Fraction of clips whose object moves in a direction other than the text says."""
    flicker_depth: tuple[float, float] = (0.2, 0.8)
    """Range of the deepest darkening: each frame is scaled by 1 - depth * U(0, 1)."""
    jitter_px: tuple[float, float] = (0.4, 1.6)
    """Range of the standard deviation of the position noise, in pixels per axis."""


WEB = DefectRates()
"""The rates of the shipped policy's data: 3 % of its clips are flawless, most are only mildly bad.

Flawless clips must be rare but possible: if they were common, the best of a few samples would
already be perfect before alignment.
"""

CLEAN = DefectRates(flicker=0.0, jitter=0.0, wrong_colour=0.0, wrong_direction=0.0)


def render(
    shape: str,
    centres_F2: Tensor,
    colour_3: Tensor,
    radius: float | Tensor,
    gains_F: Tensor | None = None,
) -> Tensor:
    """Draw one shape per frame; differentiable in every tensor argument.

    Args:
        shape: One of `grammar.SHAPES`.
        centres_F2: Centre (x, y) in pixels for each frame.
        colour_3: RGB in [0, 1].
        radius: Radius in pixels of the disc of about the same area.
        gains_F: Exposure of each frame, background included; None = 1 for all.

    Returns:
        Frames [F, 3, H, W] in [0, 1].
    """
    grid = torch.arange(SIZE_PX, dtype=centres_F2.dtype)
    x_FHW = grid[None, None, :] - centres_F2[:, 0, None, None]
    y_FHW = grid[None, :, None] - centres_F2[:, 1, None, None]
    distance_FHW = signed_distance(shape, x_FHW, y_FHW, radius)
    alpha_F1HW = torch.sigmoid(-EDGE_SHARPNESS * distance_FHW)[:, None]
    frames = BACKGROUND + alpha_F1HW * (colour_3[None, :, None, None] - BACKGROUND)
    return frames if gains_F is None else frames * gains_F[:, None, None, None]


def signed_distance(shape: str, x: Tensor, y: Tensor, radius: float | Tensor) -> Tensor:
    """Return the distance in pixels to the outline (negative inside) of a shape at the origin.

    Outside of corners it is smaller than the true distance, which makes the corners softer.
    """
    if shape == "circle":
        return torch.sqrt(x * x + y * y + 1e-6) - radius
    if shape == "square":
        return torch.maximum(x.abs(), y.abs()) - 0.886 * radius
    if shape == "triangle":
        side = math.sqrt(3) / 2 * x.abs() - 0.5 * y
        return torch.maximum(side, y) - 0.5 * TIP * radius
    raise ValueError(f"unknown shape {shape!r}")


def training_clip(rng: np.random.Generator, scene: Scene, rates: DefectRates = WEB) -> Video:
    """Render a scene with random start and speed, and with defects at the given rates."""
    shown = Scene(
        scene.size,
        _other(rng, scene.colour, list(COLOURS), rates.wrong_colour),
        scene.shape,
        _other(rng, scene.motion, list(MOTIONS), rates.wrong_direction),
    )
    centres = random_path(rng, shown)
    if rng.random() < rates.jitter:
        centres = centres + rng.normal(0.0, rng.uniform(*rates.jitter_px), centres.shape)
    gains = np.ones(NUM_FRAMES)
    if rng.random() < rates.flicker:
        gains = 1.0 - rng.uniform(*rates.flicker_depth) * rng.random(NUM_FRAMES)
    return film(shown, centres, gains)


def film(scene: Scene, centres: np.ndarray, gains: np.ndarray) -> Video:
    """Render a scene along centres [F, 2] (px) with exposures [F] to 8-bit frames."""
    with torch.no_grad():
        frames = render(
            scene.shape,
            torch.from_numpy(centres).float(),
            torch.tensor(COLOURS[scene.colour]),
            SIZES[scene.size],
            torch.from_numpy(gains).float(),
        )
    pixels = (frames.permute(0, 2, 3, 1).clamp(0, 1) * 255).round().to(torch.uint8)
    return Video(pixels.numpy(), FPS)


def random_path(rng: np.random.Generator, scene: Scene) -> np.ndarray:
    """Return centres [F, 2] in pixels of a straight, steady path that stays in the picture."""
    direction = np.asarray(MOTIONS[scene.motion])
    speed = rng.uniform(MIN_SPEED_PX, MAX_SPEED_PX)
    middle = (SIZE_PX - 1) / 2
    half_travel = speed * (NUM_FRAMES - 1) / 2
    room = middle - TIP * SIZES[scene.size]
    slack = np.maximum(room - np.abs(direction) * half_travel, 0.0)
    centre = middle + rng.uniform(-slack, slack)
    times = np.arange(NUM_FRAMES) - (NUM_FRAMES - 1) / 2
    return centre + speed * times[:, None] * direction


def _other(rng: np.random.Generator, word: str, choices: list[str], rate: float) -> str:
    if rng.random() >= rate:
        return word
    return str(rng.choice([choice for choice in choices if choice != word]))

"""Measure a Moving Shapes checkpoint: VAE round trip, and best-of-K of its policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from videorl.pretraining.policy_training import TEXT_TOKENS
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.types import Video
from videorl.worlds.grammar import parse, prompts
from videorl.worlds.moving_shapes import (
    CLEAN,
    FPS,
    NUM_FRAMES,
    SIZE_PX,
    WEB,
    DefectRates,
    training_clip,
)

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, WanPipeline

NUM_INFERENCE_STEPS = 12
GUIDANCE_SCALE = 3.0

ONE_DEFECT: dict[str, DefectRates] = {
    "clean": CLEAN,
    "flicker": DefectRates(flicker=1, jitter=0, wrong_colour=0, wrong_direction=0),
    "jitter": DefectRates(flicker=0, jitter=1, wrong_colour=0, wrong_direction=0),
    "wrong_colour": DefectRates(flicker=0, jitter=0, wrong_colour=1, wrong_direction=0),
    "wrong_direction": DefectRates(flicker=0, jitter=0, wrong_colour=0, wrong_direction=1),
    "all_defects": DefectRates(flicker=1, jitter=1, wrong_colour=1, wrong_direction=1),
    "web": WEB,
}
"""Each defect alone, then all of them, then the mixture of the training data."""


def to_videos(pixels_BFHW3: npt.NDArray[np.float32]) -> list[Video]:
    """Round pixels in [0, 1] to 8-bit videos."""
    frames = (np.clip(pixels_BFHW3, 0.0, 1.0) * 255.0).round().astype(np.uint8)
    return [Video(clip, FPS) for clip in frames]


@torch.no_grad()
def reconstruct(vae: AutoencoderKLWan, videos: Sequence[Video]) -> list[Video]:
    """Encode and decode videos, all of the same size."""
    frames = np.stack([video.frames for video in videos])
    x_BCFHW: Tensor = torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0
    z_BCTHW = vae.encode(x_BCFHW, return_dict=False)[0].mode()
    y_BCFHW = vae.decode(z_BCTHW, return_dict=False)[0]
    return to_videos((y_BCFHW / 2 + 0.5).permute(0, 2, 3, 4, 1).numpy())


def round_trip(vae: AutoencoderKLWan, *, num_clips: int, seed: int) -> dict[str, dict[str, float]]:
    """Return mean scores per defect class, before (`true`) and after the VAE, on train prompts.

    Returns:
        For each class of `ONE_DEFECT`: the mean of every reward dimension and `total` after the
        round trip, and `true_total` of the clips themselves.
    """
    rng = np.random.default_rng([seed, 2])
    reward = MovingShapesReward()
    report: dict[str, dict[str, float]] = {}
    for name, rates in ONE_DEFECT.items():
        texts = [str(text) for text in rng.choice(prompts("train"), num_clips)]
        clips = [training_clip(rng, parse(text), rates) for text in texts]
        after = reward.score(reconstruct(vae, clips), texts)
        report[name] = {
            dimension: float(np.mean([score.dimensions[dimension] for score in after]))
            for dimension in reward.dimensions
        }
        report[name]["total"] = float(np.mean([score.total for score in after]))
        true = reward.score(clips, texts)
        report[name]["true_total"] = float(np.mean([score.total for score in true]))
    return report


def sample(pipeline: WanPipeline, texts: Sequence[str], *, seed: int) -> list[Video]:
    """Sample one video per text: the stock pipeline call with the main recipe's settings."""
    pixels: Any = pipeline(
        prompt=list(texts),
        height=SIZE_PX,
        width=SIZE_PX,
        num_frames=NUM_FRAMES,
        num_inference_steps=NUM_INFERENCE_STEPS,
        guidance_scale=GUIDANCE_SCALE,
        max_sequence_length=TEXT_TOKENS,
        generator=torch.Generator().manual_seed(seed),
        output_type="np",
        return_dict=False,
    )[0]
    return to_videos(pixels)


def policy_scores(
    pipeline: WanPipeline,
    *,
    num_prompts: int,
    num_samples: int,
    seed: int,
    on_step: Callable[[int, float], None],
) -> dict[str, npt.NDArray[np.float64]]:
    """Return scores [P, G] of G samples for the first P train prompts, by dimension and total."""
    texts = prompts("train")[:num_prompts]
    reward = MovingShapesReward()
    columns: dict[str, list[list[float]]] = {name: [] for name in (*reward.dimensions, "total")}
    for row, text in enumerate(texts):
        videos = sample(pipeline, [text] * num_samples, seed=seed * 1_000 + row)
        scores = reward.score(videos, [text] * num_samples)
        for name in reward.dimensions:
            columns[name].append([score.dimensions[name] for score in scores])
        columns["total"].append([score.total for score in scores])
        on_step(row + 1, float(np.mean(columns["total"])))
    return {name: np.asarray(rows) for name, rows in columns.items()}


def best_of(totals_PG: npt.NDArray[np.float64], k: int) -> float:
    """Return the expected best of k samples drawn without replacement from the G of each prompt.

    The exact expectation over all subsets: the i-th smallest of G is the best of k with
    probability C(i - 1, k - 1) / C(G, k).
    """
    from math import comb

    num_samples = totals_PG.shape[1]
    weights = [comb(i, k - 1) / comb(num_samples, k) for i in range(num_samples)]
    return float((np.sort(totals_PG, axis=1) @ np.asarray(weights)).mean())

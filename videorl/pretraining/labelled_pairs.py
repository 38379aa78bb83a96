"""Pairs of Moving Shapes clips, labelled by the pixel reward in place of human raters.

The file has the columns of VideoReward's published data, so it is read like people's labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from videorl.data.video_io import write_mp4
from videorl.files import write_csv
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.seeds import derive_seed
from videorl.worlds.grammar import Split, parse, prompts
from videorl.worlds.moving_shapes import FPS, NUM_FRAMES, DefectRates, training_clip

CLIPS = DefectRates(wrong_colour=0.35, wrong_direction=0.35)
"""The text is contradicted more often than in the policy's data, so that it decides more labels."""
_COLUMNS = ("path_A", "path_B", "prompt", "VQ", "MQ", "TA", "fps_A", "num_frames_A", "fps_B",
            "num_frames_B")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Raters:
    """How labels come from scores in [-1, 1]."""

    same_band: float = 0.1
    """Scores that differ by less are `same`."""
    noise: float = 0.02
    """Share of labels that are drawn at random from A, B and same."""


def write_labelled_pairs(
    path: Path,
    split: Split,
    count: int,
    seed: int,
    raters: Raters,
    on_pair: Callable[[int], None] = lambda done: None,
) -> None:
    """Render `count` pairs as mp4 files and write a CSV of their labels; deterministic.

    Args:
        path: The CSV, written last and atomically; videos go into a folder of its name beside it.
        split: Which prompts to use.
        count: Number of pairs.
        seed: Seed of clips and label noise.
        raters: How scores become labels.
        on_pair: Called with the number of pairs done.
    """
    videos = path.with_suffix("")
    videos.mkdir(parents=True, exist_ok=True)
    oracle, texts = MovingShapesReward(), prompts(split)
    rows: list[tuple[object, ...]] = []
    for index in range(count):
        rng = np.random.default_rng(derive_seed(seed, "pair", split, index))
        text = texts[rng.integers(len(texts))]
        clips = [training_clip(rng, parse(text), CLIPS) for _ in "AB"]
        names = [f"{videos.name}/{index:06d}{letter}.mp4" for letter in "AB"]
        for name, clip in zip(names, clips, strict=True):
            write_mp4(path.parent / name, clip)
        first, second = oracle.score(clips, [text, text])
        margins = [first.dimensions[name] - second.dimensions[name] for name in oracle.dimensions]
        labels = [_label(rng, margin, raters) for margin in margins]
        rows.append((*names, text, *labels, FPS, NUM_FRAMES, FPS, NUM_FRAMES))
        on_pair(index + 1)
    write_csv(path, [_COLUMNS, *rows])


def _label(rng: np.random.Generator, margin: float, raters: Raters) -> str:
    if rng.random() < raters.noise:
        return str(rng.choice(["A", "B", "same"]))
    if abs(margin) < raters.same_band:
        return "same"
    return "A" if margin > 0 else "B"

"""A reward model of your own: brighter videos are better.

    python docs/examples/own_reward.py

A reward model is a class with `dimensions` and `score`. A recipe names it as `module:attribute`,
and its `options` are the arguments of the constructor.
"""

from __future__ import annotations

from collections.abc import Sequence

import videorl
from videorl.types import Score, Video


class Brightness:
    """Scores the mean brightness, between 0 (black) and 1 (white)."""

    dimensions = ("brightness",)

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Return one score per video; a pixel has values from 0 to 255."""
        values = [self.scale * float(video.frames.mean()) / 255 for video in videos]
        return [Score(dimensions={"brightness": value}, total=value) for value in values]


if __name__ == "__main__":
    summary = videorl.train(
        "moving_shapes",
        run_dir="runs/own_reward",
        num_steps=2,
        prompts={"per_round": 2},
        rewards=[{"name": "own_reward:Brightness", "options": {"scale": 2.0}}],
        evaluation={"num_prompts": 2, "best_of": 2, "samples": 2, "num_videos": 0},
    )
    total = summary["evaluation"]["total"]
    print(f"total before {total['before']:+.4f}, after {total['after']:+.4f}")

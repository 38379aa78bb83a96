"""Prompts of your own, from wherever they are.

    python docs/examples/own_prompts.py

`prompts.source` may name a function of the split, `train` or `held_out`, that returns prompts.
Their order in a run is drawn from its seed, and is the same after a resume.
"""

from __future__ import annotations

from itertools import product

import videorl

SHAPES = ("circle", "square", "triangle")
DIRECTIONS = ("left", "right", "up", "down")


def moving_shapes(split: str) -> list[str]:
    """Return prompts about red shapes for training, and about blue ones to be held out."""
    colour = "red" if split == "train" else "blue"
    return [
        f"a large {colour} {shape} moving {direction}"
        for shape, direction in product(SHAPES, DIRECTIONS)
    ]


if __name__ == "__main__":
    summary = videorl.train(
        "moving_shapes",
        run_dir="runs/own_prompts",
        num_steps=2,
        prompts={"source": "own_prompts:moving_shapes", "per_round": 2},
        evaluation={
            "source": "own_prompts:moving_shapes",
            "num_prompts": 2,
            "best_of": 1,
            "samples": 1,
        },
    )
    print(f"held-out total {summary['evaluation']['total']['after']:+.4f}")

"""The prompt grammar of Moving Shapes: "a <size> <colour> <shape> moving <direction>"."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Literal, TypeAlias

from videorl.errors import PromptError

Split: TypeAlias = Literal["train", "held_out"]

SIZES: dict[str, float] = {"small": 3.6, "large": 5.4}
"""Radius in pixels of the disc whose area each shape of that size roughly has."""

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.9, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.1, 0.2, 0.9),
    "yellow": (0.9, 0.9, 0.1),
    "cyan": (0.1, 0.9, 0.9),
    "magenta": (0.9, 0.1, 0.9),
    "orange": (0.9, 0.5, 0.1),
    "white": (0.9, 0.9, 0.9),
}
"""RGB in [0, 1]; all have the same peak, so that brightness says nothing about colour."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle")

MOTIONS: dict[str, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
"""Unit direction (x, y) in image coordinates: y grows downwards."""

NUM_HELD_OUT = 64


@dataclass(frozen=True, slots=True)
class Scene:
    """What a prompt asks for; each field is a word of the grammar."""

    size: str
    colour: str
    shape: str
    motion: str

    @property
    def text(self) -> str:
        """The prompt that `parse` turns back into this scene."""
        return f"a {self.size} {self.colour} {self.shape} moving {self.motion}"


def words() -> list[str]:
    """Return every word of the grammar once, in a fixed order (the tokenizer's vocabulary)."""
    return ["a", "moving", *SIZES, *COLOURS, *SHAPES, *MOTIONS]


def scenes() -> list[Scene]:
    """Return all 192 scenes of the grammar, in a fixed order."""
    return [Scene(*parts) for parts in itertools.product(SIZES, COLOURS, SHAPES, MOTIONS)]


def prompts(split: Split) -> list[str]:
    """Return the prompts of a split: 128 to train on, or the 64 never seen in training.

    The order is by a hash of the text: shuffled, but the same everywhere and in every version.

    Raises:
        PromptError: `split` is neither "train" nor "held_out".
    """
    if split not in ("train", "held_out"):
        raise PromptError(f'split must be "train" or "held_out", got {split!r}')
    texts = sorted((scene.text for scene in scenes()), key=_stable_hash)
    return texts[:NUM_HELD_OUT] if split == "held_out" else texts[NUM_HELD_OUT:]


def parse(text: str) -> Scene:
    """Parse a prompt of the grammar; case and repeated spaces do not matter.

    Raises:
        PromptError: The text is not of the form "a <size> <colour> <shape> moving <direction>".
    """
    tokens = text.lower().split()
    if len(tokens) != 6 or tokens[0] != "a" or tokens[4] != "moving":
        raise PromptError(f'expected "a <size> <colour> <shape> moving <direction>", got {text!r}')
    allowed = {"size": SIZES, "colour": COLOURS, "shape": SHAPES, "motion": MOTIONS}
    found = dict(zip(allowed, (tokens[1], tokens[2], tokens[3], tokens[5]), strict=True))
    for name, word in found.items():
        if word not in allowed[name]:
            raise PromptError(
                f"unknown {name} {word!r} in {text!r}: expected one of {', '.join(allowed[name])}"
            )
    return Scene(**found)


def _stable_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

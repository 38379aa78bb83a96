"""Bytes and numbers of one process of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from videorl.planning.cards import GIB
from videorl.planning.counting import held

if TYPE_CHECKING:
    from videorl.config import Recipe
    from videorl.planning.shadow import Shadow


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process on its GPU, by what they are for."""

    weights: float
    reference: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    buffers: float = 0.0
    """Of DeepSpeed: gradients on their way, and gathered weights."""
    activations: float = 0.0
    """The most that is held beside the above."""
    host: float = 0.0
    """In host memory, beside what the process itself takes there; no part of the peak."""

    @property
    def peak(self) -> float:
        """All of it."""
        held_always = self.weights + self.reference + self.gradients + self.optimizer
        return held_always + self.buffers + self.activations

    @property
    def peak_gib(self) -> float:
        """All of it, in GiB."""
        return self.peak / GIB


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers and bytes of a policy, without its activations."""

    frozen_bytes: float
    """Weights that are not trained."""
    trained: float
    """Numbers that are trained."""
    reference_bytes: float
    transformer: float
    """Parameters of one transformer, without adapters."""
    one_block_bytes: float = 0.0
    """`reference_bytes` of a model with a single block: what is on the GPU at one time where the
    reference of full fine-tuning lies in host memory."""
    share_in_blocks: float = 1.0
    """Of a transformer's frozen weights, those in its blocks."""
    num_transformers: int = 1
    """That a learner trains; all but `transformer`, `one_block_bytes` and `share_in_blocks` count
    all of them."""
    away_bytes: float = 0.0
    """Of `frozen_bytes`, those of transformers that wait in host memory."""


def weights_of(shadow: Shadow, recipe: Recipe) -> tuple[float, float, float, float]:
    """Return the first four fields of `Sizes` for one transformer of a learner.

    Args:
        shadow: The policy, trainable.
        recipe: Says whether its reference is a copy of the whole model, with buffers.
    """
    assert shadow.trained is not None
    trained = list(shadow.trained.policy.values())
    reference = list(shadow.trained.reference.values())
    module = shadow.module("policy")
    others = {id(each) for each in (*trained, *reference)}
    frozen = [each for each in module.parameters() if id(each) not in others]
    copied = [] if recipe.policy.lora.rank else list(shadow.module("reference").buffers())
    transformer = sum(each.numel() for each in frozen) or sum(p.numel() for p in trained)
    return held(frozen), sum(p.numel() for p in trained), held([*reference, *copied]), transformer

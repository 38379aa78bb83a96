"""Bytes and numbers of one process of a run."""

from __future__ import annotations

from dataclasses import dataclass

from videorl.planning.cards import GIB


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
    num_transformers: int = 1
    """That a learner trains; all but `transformer` and `one_block_bytes` count all of them."""
    away_bytes: float = 0.0
    """Of `frozen_bytes`, those of transformers that wait in host memory."""

"""What a reward model brings to be trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn


Split: TypeAlias = Literal["train", "held_out"]


@dataclass(frozen=True, slots=True)
class Measured:
    """Losses of some examples, with gradient, and numbers worth logging; one of each per example.

    An example that cannot be read gives its place to the next one that can: `num_skipped` of them.
    """

    loss_N: Tensor
    metrics: Mapping[str, Tensor]
    num_skipped: int


class RewardTask(Protocol):
    """A model in training, with its labelled examples. Every rank holds the same."""

    @property
    def module(self) -> nn.Module:
        """The network; what requires gradients is trained."""
        ...

    def num_examples(self, split: Split) -> int:
        """Return how many labelled examples there are; those held out may be none."""
        ...

    def losses(self, indices: Sequence[int]) -> Measured:
        """Return the loss of each training example."""
        ...

    def predict(self, indices: Sequence[int]) -> Tensor:
        """Return what the model says of held-out examples, float32 [N, K], without gradient.

        K depends on the model alone. A row is NaN where the example cannot be read.
        """
        ...

    def judge(self, predictions_NK: Tensor) -> Mapping[str, float]:
        """Compare predictions for all held-out examples with their labels."""
        ...

    def export(self, folder: Path, step: int, predictions_NK: Tensor | None) -> None:
        """Write the model in its published layout, so that `videorl.rewards.load` opens it.

        Args:
            folder: Is created.
            step: Optimizer steps done.
            predictions_NK: For all held-out examples, to normalise scores by; None = there are
                none.
        """
        ...

"""The interface between a reward model and its trainer."""

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
    """Losses [N] of examples, with gradient, and metrics [N] to log.

    Each of the `num_skipped` examples that cannot be read is replaced by the next that can.
    """

    loss_N: Tensor
    metrics: Mapping[str, Tensor]
    num_skipped: int


class RewardTask(Protocol):
    """A model in training, with its labelled examples; the same on every rank."""

    @property
    def module(self) -> nn.Module:
        """The network; parameters that require gradients are trained."""
        ...

    def num_examples(self, split: Split) -> int:
        """Return the number of labelled examples; 0 is possible only for `held_out`."""
        ...

    def losses(self, indices: Sequence[int]) -> Measured:
        """Return the loss of each training example."""
        ...

    def predict(self, indices: Sequence[int]) -> Tensor:
        """Return predictions for held-out examples, float32 [N, K], without gradient.

        K depends on the model alone. The row of an example that cannot be read is NaN.
        """
        ...

    def judge(self, predictions_NK: Tensor) -> Mapping[str, float]:
        """Return metrics that compare predictions for all held-out examples with their labels."""
        ...

    def export(self, folder: Path, step: int, predictions_NK: Tensor | None) -> None:
        """Write the model in its published layout, so that `videorl.rewards.load` opens it.

        Args:
            folder: Is created.
            step: Number of optimizer steps done.
            predictions_NK: Predictions for all held-out examples, from which scores can be
                normalised; None = there are none.
        """
        ...

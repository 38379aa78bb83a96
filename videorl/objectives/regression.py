"""The loss of SFT and Flow-RWR: the policy's own error on single candidates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from videorl.objectives.objective import FrozenRole, LossInputs

if TYPE_CHECKING:
    from torch import Tensor

LOGS = ("regression/error", "regression/error_change")

_LARGE_VIDEO = 2_000_000
"""Pixels (frames times height times width) from which the comparison is off by default."""


def regression_loss(inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the error of each item [N]; the learner multiplies by the candidates' weights.

    Logs the error, and how it changed against the reference's where that is known.
    """
    err_N = inputs.err_NR.squeeze(1)
    metrics = {"regression/error": err_N.detach()}
    if "reference" in inputs.errors:
        change_N = err_N.detach() / inputs.ref_err_NR.squeeze(1) - 1
        metrics["regression/error_change"] = change_N
    return err_N, metrics


def compared_roles(compare: bool | None, video_pixels: int) -> frozenset[FrozenRole]:
    """Return the reference if the error is to be compared with its own, which only logs it.

    Args:
        compare: What the recipe says; None = only where a video is small.
        video_pixels: Frames times height times width of a video.
    """
    is_on = video_pixels < _LARGE_VIDEO if compare is None else compare
    return frozenset({"reference"}) if is_on else frozenset()

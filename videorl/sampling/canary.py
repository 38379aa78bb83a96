"""The canary: a check that generators with verified weights sample what the learner samples.

The digest covers the trained tensors only. A generator may still have another frozen base, other
kernels or a broken device. Every few versions the learner samples a fixed prompt and seed itself,
and every generator must come to the same latents, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from videorl.config import RolloutsConfig
from videorl.errors import CanaryError, WeightMismatchError
from videorl.seeds import derive_seed
from videorl.types import BLANK, Prompt, SampleRequest, WeightVersion

if TYPE_CHECKING:
    from torch import Tensor

Canary = Callable[[WeightVersion], float]
"""Checks a version; returns the largest difference of any generator, or raises `CanaryError`."""

_TEXT = "a large red circle moving left"


def canary_request(seed: int, version: WeightVersion) -> SampleRequest:
    """Return the request of the canary: the same prompt and seed for every version."""
    seeds = (derive_seed(seed, "canary"),)
    return SampleRequest(version.step, Prompt(0, _TEXT, image=BLANK), seeds, version)


def is_due(config: RolloutsConfig, version: WeightVersion) -> bool:
    """Tell whether a version should be checked; the first one is."""
    interval = config.canary_interval
    return interval > 0 and version.step % interval == 0


def difference(found: Tensor, wanted: Tensor) -> float:
    """Return ‖found − wanted‖₂ / ‖wanted‖₂: 0 = equal bit for bit, more than 1 = unrelated."""
    return float((found - wanted).float().norm() / wanted.float().norm())


def compare(found: Tensor, wanted: Tensor, version: WeightVersion, tolerance: float) -> float:
    """Return the difference of a generator's canary from the learner's.

    Raises:
        WeightMismatchError: It is larger than `tolerance`, or not finite.
    """
    measured = difference(found, wanted)
    if not measured <= tolerance:
        raise WeightMismatchError(
            f"canary of step {version.step}: latents differ from the learner's by {measured:.3g} "
            f"of their norm, allowed are {tolerance:g} (rollouts.canary_tolerance); this worker's "
            "weights are right, so its frozen base, kernels or device are not"
        )
    return measured


def explain(version: WeightVersion, error: Exception) -> CanaryError:
    """Return the error that ends a run whose generators all disagree with its learner."""
    return CanaryError(
        f"canary of step {version.step}: no generator agrees with the learner ({error}). Is "
        "policy.path the same on every node? Different hardware may need a larger "
        "rollouts.canary_tolerance. Then start the same command again"
    )

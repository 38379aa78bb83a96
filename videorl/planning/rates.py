"""How fast each kind of work goes, and what accelerators change: the one place for both.

A rate is a share of the card's dense bfloat16 rate. Only what changes the counted work, or the
order of stages, is planned as a gain. What makes the same work faster has no factor here until it
has been measured on a GPU: then it is a `Rate`, with its source.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Work: TypeAlias = Literal["learning", "sampling", "decoding", "scoring", "encoding"]


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a kind of work goes."""

    share: float
    """Of the card's dense bfloat16 rate, in (0, 1]."""
    source: str


_TRAINING = "training runs of large language models: 46 % (PaLM, arXiv 2204.02311), 38 to 43 % "
_TRAINING += "(Llama 3, arXiv 2407.21783); not measured for these models"
_ALIKE = "taken to be that of learning; not measured"

RATES: dict[Work, Rate] = {
    "learning": Rate(0.45, _TRAINING),
    "sampling": Rate(0.45, _ALIKE),
    "decoding": Rate(0.45, _ALIKE),
    "scoring": Rate(0.45, _ALIKE),
    "encoding": Rate(0.45, _ALIKE),
}
FLOAT32 = 2.0
"""How many times longer float32 convolutions (as TF32) take than bfloat16 ones: the makers' tables
have half the rate for TF32."""

FLOAT32_PRODUCTS = 15.0
"""How many times longer float32 matrix products take, those of a policy in float32: PyTorch rounds
them to TF32 only where it is told so. Makers' tables: 67 against 989 TFLOPS for an H100, 19.5
against 312 for an A100."""


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A change that makes a run faster, and what the plan knows of it."""

    name: str
    changes: str
    """What of the counted work, or of the order of stages, becomes another; empty = nothing, so
    that the plan has no gain for it."""


ACCELERATORS = (
    Accelerator("adapters merged for sampling", "their operations are left out of a step"),
    Accelerator("rollouts.max_staleness", "stages of different rounds run at the same time"),
    Accelerator("guidance in one batch", ""),
    Accelerator("torch.compile", ""),
    Accelerator("attention back ends", ""),
)
"""Those without `changes` do the same operations, only faster."""

"""What one learner rank does in a rehearsal; nothing of it is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from videorl.errors import VideoError
from videorl.learning.engines import Engine
from videorl.learning.gradient_step import with_last
from videorl.learning.items import micro_batches
from videorl.learning.method import Method
from videorl.learning.share import Groups


def rehearse_step(
    method: Method,
    engine: Engine,
    micro_batch_size: int,
    examples: Sequence[Any],
    ranks_per_example: int = 1,
) -> None:
    """Go forward and backward on this rank's first micro-batch of a step with `examples`.

    No update is made: the loss is multiplied by NaN, and an engine leaves out an update whose
    gradient is not finite, and clears the gradient.

    Raises:
        VideoError: Nothing in the examples is finite.
    """
    updates, _ = method.items(0, examples, Groups(engine, ranks_per_example))
    if not updates:
        raise VideoError("latents, or the embedding of the prompt, hold NaN or infinity")
    batch = micro_batches(updates[0].items, micro_batch_size)[0]
    for run, is_last in with_last(method.passes(method.shortened(batch))):
        loss, _ = run()
        engine.backward(loss * math.nan, is_last=is_last)
    engine.step(0.0)
    _wait_for_all(engine)


def _wait_for_all(engine: Engine) -> None:
    """Return when every rank has come here."""
    engine.sum_over_ranks(torch.zeros(1))

"""What one learner rank does in a rehearsal; nothing of it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from videorl.errors import CheckpointError, VideoError
from videorl.learning.engines import Engine
from videorl.learning.engines.deepspeed_state import MOMENTS, moment_name
from videorl.learning.gradient_step import with_last
from videorl.learning.items import micro_batches
from videorl.learning.method import Method
from videorl.learning.share import Groups
from videorl.run.checkpoints import CheckpointFolder


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


def rehearse_checkpoint(
    checkpoints: CheckpointFolder,
    engine: Engine,
    tensors: Mapping[str, Mapping[str, Tensor]],
    state: Mapping[str, Any],
) -> None:
    """Write a checkpoint beside those of the run on rank 0, read it on every rank, and remove it.

    It is as large as a later one: the optimizer's moments are there, as zeros.

    Raises:
        CheckpointError: It cannot be written, or a rank cannot read it.
    """
    trial = checkpoints.trial()
    try:
        if engine.rank == 0:
            whole = {**tensors, "optimizer": _with_moments(tensors["optimizer"])}
            trial.write(0, whole, state)
        _wait_for_all(engine)
        reader = checkpoints.trial()
        if (found := reader.latest()) is None:
            raise CheckpointError(
                f"rank {engine.rank} does not see the checkpoint that rank 0 wrote: set "
                "checkpoint.location, or run_dir, to a place that every learner rank reaches"
            )
        for file in found[0].glob("*.safetensors"):
            load_file(file)
        _wait_for_all(engine)
    finally:
        if engine.rank == 0:
            trial.remove()


def _with_moments(optimizer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add the moments that there are none of before the first update."""
    if float(optimizer["step"]) > 0:
        return dict(optimizer)
    names = [name for name in optimizer if name != "step"]
    zeros = {
        moment_name(name, moment): torch.zeros_like(optimizer[name])
        for name in names
        for moment in MOMENTS
    }
    return {**optimizer, **zeros}


def _wait_for_all(engine: Engine) -> None:
    """Return when every rank has come here."""
    engine.sum_over_ranks(torch.zeros(1))

"""Change or keep what a stock pipeline computes at each of its steps."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

Change: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, x_t, time or timestep) -> the prediction to use instead."""

StepCallback: TypeAlias = Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]]
"""What diffusers calls after each step: (pipeline, step, timestep, tensors) -> changed tensors."""


def kept_latents(steps: Sequence[int], last: int) -> tuple[list[Tensor], StepCallback]:
    """Return a list that fills with each item's latents after its own number of steps.

    Args:
        steps: For each item of the batch, after how many steps its latents are kept.
        last: The pipeline stops after so many steps.

    Returns:
        The list, and the callback to pass to the pipeline as `callback_on_step_end`.
    """
    found: list[Tensor] = [torch.empty(0)] * len(steps)

    def keep(pipeline: Any, step: int, _: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        for number, wanted in enumerate(steps):
            if wanted == step + 1:
                found[number] = tensors["latents"][number].float()
        pipeline._interrupt = step + 1 >= last  # as diffusers documents for callbacks
        return {}

    return found, keep


@contextmanager
def after_steps(pipeline: Any, callback: StepCallback | None) -> Iterator[None]:
    """Inside the block, call a callback after each step of a pipeline that takes none itself.

    Args:
        pipeline: Its scheduler returns a tuple; it looks at `interrupt` before each step.
        callback: As `callback_on_step_end`, but it cannot change tensors; None = there is none.
    """
    if callback is None:
        yield
        return
    scheduler, numbers = pipeline.scheduler, itertools.count()
    before, is_own = scheduler.step, "step" in vars(scheduler)

    @functools.wraps(before)
    def step(prediction: Tensor, timestep: Any, *others: Any, **named: Any) -> tuple[Tensor, ...]:
        found = before(prediction, timestep, *others, **named)
        callback(pipeline, next(numbers), timestep, {"latents": found[0]})
        return found

    scheduler.step = step
    try:
        yield
    finally:
        if is_own:
            scheduler.step = before
        else:
            del scheduler.step


@contextmanager
def changed_steps(scheduler: Any, change: Change) -> Iterator[None]:
    """Inside the block, pass what `scheduler.step` is given through `change`.

    At this place every pipeline, with any solver, passes on its final prediction (after
    classifier-free guidance) together with x_t, so no pipeline has to be reimplemented.

    Args:
        scheduler: A diffusers scheduler, whose `step` has the arguments `model_output`, `timestep`
            and `sample`.
        change: Is called with (model_output, sample, timestep).
    """
    stock_step = scheduler.step
    signature = inspect.signature(stock_step)

    @functools.wraps(stock_step)  # pipelines inspect its signature
    def step(*positional: Any, **named: Any) -> Any:
        given = signature.bind(*positional, **named)
        values = given.arguments
        timestep = torch.as_tensor(values["timestep"])
        values["model_output"] = change(values["model_output"], values["sample"], timestep)
        return stock_step(*given.args, **given.kwargs)

    scheduler.step = step
    try:
        yield
    finally:
        del scheduler.step

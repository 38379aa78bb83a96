"""Change what a stock pipeline passes to its scheduler at each step."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor

Change: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(prediction, x_t, time or timestep) -> the prediction to use instead."""


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

"""One optimizer step from micro-batches, whatever is learned: shared by all that train."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from videorl.config import OptimizerConfig
from videorl.learning.engines import Engine
from videorl.objectives.objective import SKIPPED

T = TypeVar("T")

logger = logging.getLogger(__name__)


def gradient_step(
    engine: Engine,
    passes: Iterable[Callable[[], tuple[Tensor, dict[str, Tensor]]]],
    config: OptimizerConfig,
    step: int,
    *,
    scale: float = 1.0,
    counts: bool = True,
) -> dict[str, float]:
    """Take one optimizer step; all ranks make the same calls.

    Args:
        engine: The optimizer.
        passes: This rank's forward passes (>= 1); all ranks have equally many, of equal sizes.
            Each returns a loss with gradient, and scalars to log. Both are weighted so that they
            add up to the whole step's over all passes and ranks.
        config: Learning rate and its schedule.
        step: Number of the step, for the schedule.
        scale: Multiplies the gradient, and nothing that is logged but its norm.
        counts: Whether what this rank measured counts; not so where another rank, which shares its
            videos, measured the same. Of the gradient each of them has its own part.

    Returns:
        The sums over all ranks; `optimizer/skipped`, 1 where the gradient was not finite and the
        update was left out; and `optimizer/grad_norm` before clipping where it was finite.
    """
    totals: dict[str, Tensor] = {}
    for run, is_last in with_last(passes):
        loss_sum, values = run()
        # Ranks average their gradients, while weights already sum to 1 over all ranks; those that
        # share videos each have a part of the gradient, and the parts are to be summed too.
        engine.backward(loss_sum * (engine.world_size * scale), is_last=is_last)
        totals |= {name: totals.get(name, 0) + value.cpu() for name, value in values.items()}
    norm = engine.step(learning_rate(config, step))
    own = torch.stack(list(totals.values()))
    summed = engine.sum_over_ranks(own if counts else torch.zeros_like(own))
    metrics = dict(zip(totals, summed.tolist(), strict=True))
    is_finite = math.isfinite(norm)
    if not is_finite:
        logger.warning("step %d: the gradient is not finite, no update is made", step)
    metrics[SKIPPED] = float(not is_finite)
    return metrics | ({"optimizer/grad_norm": norm} if is_finite else {})


def whole_step(updates: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return what a step measured, of what its updates (>= 1) did: `optimizer/...` are means.

    All others are parts of sums over the step.
    """
    metrics: dict[str, float] = {}
    for name in dict.fromkeys(name for update in updates for name in update):
        first, *others = [update[name] for update in updates if name in update]
        total = sum(others, first)  # not from 0: a single value stays what it is, bit for bit
        metrics[name] = total / (1 + len(others)) if name.startswith("optimizer/") else total
    return metrics


def with_last(items: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """Yield each item, and whether it is the last; items are made only when they are near."""
    remaining = iter(items)
    item = next(remaining, None)
    while item is not None:
        following = next(remaining, None)
        yield item, following is None
        item = following


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Return the rate of an optimizer step: linear warm-up to the peak, then what is to follow.

    The last step of the warm-up and the next one have the peak, `optimizer.learning_rate`; from
    `decay_steps` on it is 0, unless the rate is constant.
    """
    peak, warmup, end = config.learning_rate, config.warmup_steps, config.decay_steps
    if step < warmup:
        return peak * ((step + 1) / warmup)
    if not end or config.schedule == "constant":
        return peak
    done = min(1.0, (step - warmup) / (end - warmup))
    return peak * (
        0.5 + 0.5 * math.cos(math.pi * done) if config.schedule == "cosine" else 1 - done
    )

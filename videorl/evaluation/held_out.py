"""Sample and score fixed held-out prompts with fixed seeds, on whatever generators there are."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from videorl.config import Recipe
from videorl.data.prompts import load_prompts
from videorl.errors import PromptError, WorkLostError
from videorl.protocols import Generator, Scorer
from videorl.rollouts import chain
from videorl.run.progress import track
from videorl.seeds import derive_seed
from videorl.types import Prompt, SampleRequest, ScoredGroup, WeightVersion

logger = logging.getLogger(__name__)


def held_out_prompts(recipe: Recipe) -> list[Prompt]:
    """Return the evaluation prompts, chosen by `evaluation.seed` alone.

    Weights do not matter, but for 0, which leaves a prompt out: each counts once in the means.
    """
    found = load_prompts(recipe.evaluation.source, "held_out", recipe.evaluation.column)
    rows = [row for row in found if row.weight > 0]
    order = np.random.default_rng(recipe.evaluation.seed).permutation(len(rows))
    chosen = sorted(order[: recipe.evaluation.num_prompts].tolist())
    return [Prompt(index, rows[index].text, rows[index].id, rows[index].tags) for index in chosen]


def evaluation_seeds(recipe: Recipe, prompt: Prompt, count: int) -> tuple[int, ...]:
    """Return the first `count` seeds of a prompt: equal for every policy, whatever `count` is."""
    seed = recipe.evaluation.seed
    return tuple(derive_seed(seed, "evaluation", prompt.text, index) for index in range(count))


def sample_and_score(
    recipe: Recipe,
    version: WeightVersion,
    generator: Generator,
    scorer: Scorer,
    *,
    samples: int,
    label: str,
    should_stop: Callable[[], bool],
) -> list[ScoredGroup] | None:
    """Return one scored group of `samples` candidates per held-out prompt, in prompt order.

    A prompt that is lost on the way is logged and left out. None if `should_stop` said so.
    """
    futures = [
        chain(
            SampleRequest(0, prompt, evaluation_seeds(recipe, prompt, samples), version),
            generator,
            scorer,
        )
        for prompt in held_out_prompts(recipe)
    ]
    groups = []
    for future in track(futures, label):
        if should_stop():
            return None
        try:
            groups.append(future.result())
        except (PromptError, WorkLostError) as error:
            logger.warning("a held-out prompt was lost: %s", error)
    return groups


def shared_prompts(
    before: Sequence[ScoredGroup], after: Sequence[ScoredGroup]
) -> tuple[list[ScoredGroup], list[ScoredGroup]]:
    """Return both lists cut to the prompts that are whole in both, in the same order."""
    by_index = {group.prompt.index: group for group in after if not group.dropped}
    kept = [group for group in before if not group.dropped and group.prompt.index in by_index]
    return kept, [by_index[group.prompt.index] for group in kept]

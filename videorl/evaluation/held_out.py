"""Sample and score fixed held-out prompts with fixed seeds."""

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

    A weight of 0 leaves a prompt out; other weights do not matter: each counts once in the means.
    """
    found = load_prompts(recipe.evaluation.source, "held_out", recipe.evaluation.column)
    rows = [row for row in found if row.weight > 0]
    order = np.random.default_rng(recipe.evaluation.seed).permutation(len(rows))
    indices = sorted(order[: recipe.evaluation.num_prompts].tolist())
    return [Prompt(index, rows[index].text, rows[index].id, rows[index].tags) for index in indices]


def evaluation_seeds(recipe: Recipe, prompt: Prompt, count: int) -> tuple[int, ...]:
    """Return the first `count` seeds of a prompt; the same for every policy."""
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

    A prompt that is lost on the way is logged and left out.

    Args:
        recipe: Its `evaluation` names prompts and seeds.
        version: The weights to sample from.
        generator: Samples, in this process or on a pool.
        scorer: Scores, likewise.
        samples: Candidates per prompt, >= 1.
        label: Of the progress bar.
        should_stop: Asked before each result; None is returned when it says so.
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
    """Return the groups of prompts that lost no candidate in either list, in the same order."""
    by_index = {group.prompt.index: group for group in after if not group.dropped}
    kept = [group for group in before if not group.dropped and group.prompt.index in by_index]
    return kept, [by_index[group.prompt.index] for group in kept]

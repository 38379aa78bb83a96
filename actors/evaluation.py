"""Compare a run's newest checkpoint with its base, without a learner."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import ray
from ray.actor import ActorHandle

from actors.assembly import start_pools
from actors.placement import Node, Placement, check_feasible, live_nodes, place, wait_until_serving
from actors.store.weights import create_weight_store, publish
from videorl.config import Recipe
from videorl.evaluation.evaluate import EvaluationSummary, summarise
from videorl.evaluation.held_out import sample_and_score, shared_prompts
from videorl.policies import load_policy
from videorl.run.checkpoints import newest_weights
from videorl.run.folder import RunFolder
from videorl.types import ScoredGroup, WeightVersion
from videorl.weights import digest

Keep = Callable[[str, list[ScoredGroup]], object]
"""Takes `before` or `after` and the groups of that evaluation."""


def evaluate(recipe: Recipe, folder: RunFolder) -> EvaluationSummary:
    """Sample and score the held-out prompts with the base and with the newest checkpoint.

    Must be connected to Ray.

    Raises:
        CheckpointError: The run has no checkpoint.
    """
    groups: list[list[ScoredGroup]] = []
    compare(recipe, folder, lambda _, found: groups.append(found), lambda: False)
    before, after = groups
    return summarise(*shared_prompts(before, after))


def compare(
    recipe: Recipe, folder: RunFolder, keep: Keep, should_stop: Callable[[], bool]
) -> WeightVersion | None:
    """Sample and score the held-out prompts with both; return the newest version, None if stopped.

    Must be connected to Ray, with nothing learning.

    Args:
        recipe: The run.
        folder: Its folder.
        keep: Called with `before` and the base's groups, then with `after` and the others, while
            their videos can be fetched.
        should_stop: Asked between prompts.

    Raises:
        CheckpointError: The run has no checkpoint.
    """
    aligned, weights = newest_weights(recipe.checkpoint, folder.root)
    placement = comparison_placement(recipe, live_nodes())
    with ExitStack() as stack:
        store = create_weight_store(keep=2)
        generator, scorer = start_pools(recipe, placement, store, stack)
        # Without a share: the pools may have taken every core, and would be waited for for ever.
        base = ray.get(ray.remote(_publish_base).options(num_cpus=0).remote(recipe, store))
        publish(store, aligned, weights)
        wait_until_serving([generator.pool, *scorer.pools], placement)
        evaluation = recipe.evaluation
        for name, version, samples in (
            ("before", base, evaluation.best_of),
            ("after", aligned, evaluation.samples),
        ):
            groups = sample_and_score(
                recipe,
                version,
                generator,
                scorer,
                samples=samples,
                label=f"held-out prompts, {'base' if version is base else f'step {aligned.step}'}",
                should_stop=should_stop,
            )
            if groups is None:
                return None
            keep(name, groups)
    return aligned


def comparison_placement(recipe: Recipe, nodes: Sequence[Node]) -> Placement:
    """Return where `compare` puts its workers, with the learner's share free for them.

    Raises:
        ResourceError: They do not fit.
    """
    idle = replace(recipe, learner=replace(recipe.learner, num_cpus=0.0, num_gpus=0.0))
    placement = place(idle, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    return placement


def _publish_base(recipe: Recipe, store: ActorHandle) -> WeightVersion:
    """Put the weights that the run started from into the store: its policy as first loaded."""
    policy = load_policy(
        recipe.policy, recipe.sampling, parts=frozenset({"transformer"}), seed=recipe.seed
    )
    weights = policy.weights()
    version = WeightVersion(0, digest(weights))
    publish(store, version, weights)
    return version

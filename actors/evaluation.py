"""Compare a run's newest checkpoint with its base, without a learner."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import ray
import torch
from ray.actor import ActorHandle

from actors.assembly import pools_by_role, start_pools
from actors.compute_type import computing_devices
from actors.naming import run_name
from actors.placement import Node, Placement, check_feasible, live_nodes, place, wait_until_serving
from actors.pool.places import Places
from actors.seats.booking import book
from actors.store.weights import publish, weight_store
from videorl.config import PolicyConfig, Recipe
from videorl.errors import StoppedError, WorkLostError
from videorl.evaluation.evaluate import EvaluationSummary, summarise
from videorl.evaluation.held_out import NOTHING_SHARED, sample_and_score, shared_prompts
from videorl.evaluation.kept_groups import KeptGroups, Save, path_of, path_of_base
from videorl.policies import load_policy
from videorl.run.compute_type import with_compute_type
from videorl.run.folder import RunFolder
from videorl.run.published_weights import newest_weights
from videorl.types import ScoredGroup, WeightVersion
from videorl.weights import digest

logger = logging.getLogger(__name__)

Kept = Callable[[str, WeightVersion, Save], KeptGroups]
"""Takes `before` or `after`, the weights, and what writes videos; returns the groups of that
evaluation so far."""


@dataclass(frozen=True)
class Comparison:
    """The groups of both policies, each in prompt order."""

    base: list[ScoredGroup]
    aligned: list[ScoredGroup]
    version: WeightVersion
    """The aligned weights."""


def evaluate(
    recipe: Recipe, folder: RunFolder, should_stop: Callable[[], bool]
) -> EvaluationSummary | None:
    """Sample and score the held-out prompts with the base and with the newest checkpoint.

    Must be connected to Ray. What is sampled is kept in the run folder, unless that is read-only.

    Returns:
        The comparison; None if stopped, the same call then goes on.

    Raises:
        CheckpointError: The run has no checkpoint.
    """
    recipe = with_compute_type(
        recipe, folder.root, lambda: computing_devices(recipe, live_nodes()), note=False
    )
    is_writable = os.access(folder.root, os.W_OK)
    if not is_writable:
        logger.warning("%s is read-only: what is sampled is not kept", folder.root)

    def kept(name: str, version: WeightVersion, save: Save) -> KeptGroups:
        if not is_writable:
            return KeptGroups(None)
        path = path_of(folder.evaluation, recipe, version)
        return KeptGroups(path, shared=path_of_base(recipe, version))

    found = compare(recipe, folder, kept, should_stop)
    if found is None:
        return None
    before, after = shared_prompts(found.base, found.aligned)
    if not before:
        raise WorkLostError(NOTHING_SHARED)
    return summarise(before, after)


def compare(
    recipe: Recipe, folder: RunFolder, kept: Kept, should_stop: Callable[[], bool]
) -> Comparison | None:
    """Sample and score the held-out prompts with base and newest checkpoint; None if stopped.

    Must be connected to Ray, with nothing learning.

    Args:
        recipe: The run.
        folder: Its folder.
        kept: Says what there is already of an evaluation, and where the rest goes.
        should_stop: Asked between prompts.

    Raises:
        CheckpointError: The run has no checkpoint.
    """
    try:
        return _compared(recipe, folder, kept, should_stop)
    except StoppedError:  # while it waited for places or workers
        return None


def _compared(
    recipe: Recipe, folder: RunFolder, kept: Kept, should_stop: Callable[[], bool]
) -> Comparison | None:
    aligned, weights = newest_weights(recipe.checkpoint, folder.root)
    placement = comparison_placement(recipe, live_nodes())
    found: list[list[ScoredGroup]] = []
    with ExitStack() as stack:
        places = Places(placement)
        booking = stack.enter_context(book(recipe, placement, places, should_stop))
        store = stack.enter_context(weight_store(2, run_name(recipe)))
        generator, scorer = start_pools(recipe, placement, booking, store, stack)
        # Without a share: the pools may have taken every core, and would be waited for for ever.
        base = ray.get(ray.remote(_publish_base).options(num_cpus=0).remote(recipe, store))
        publish(store, aligned, weights)
        places.pools = pools_by_role(placement, generator, scorer)
        wait_until_serving(places.pools.values(), places, should_stop)
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
                should_stop=should_stop,
                kept=kept(name, version, scorer.files.save),
            )
            if groups is None:
                return None
            found.append(groups)
        if uncompiled := generator.num_uncompiled():
            logger.warning("policy.compile failed for %d requests, sampled uncompiled", uncompiled)
    return Comparison(found[0], found[1], aligned)


def comparison_placement(recipe: Recipe, nodes: Sequence[Node]) -> Placement:
    """Return where `compare` puts its workers, with the learner's share free for them.

    Raises:
        ResourceError: They do not fit.
    """
    idle = replace(recipe, learner=recipe.learner.taking_nothing())
    placement = place(idle, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    return placement


def _publish_base(recipe: Recipe, store: ActorHandle) -> WeightVersion:
    """Put the weights that the run started from into the store: its policy as first loaded.

    On the CPU, as no GPU was asked for; the recipe states the type that the generators hold too.
    """
    # It computes nothing here, so that what GPUs compute with is not asked for.
    config = replace(recipe.policy, attention_backend=PolicyConfig().attention_backend)
    policy = load_policy(
        replace(config, compile=PolicyConfig().compile),
        recipe.sampling,
        parts=frozenset({"transformer"}),
        device=torch.device("cpu"),
        seed=recipe.seed,
    )
    weights = policy.weights()
    version = WeightVersion(0, digest(weights))
    publish(store, version, weights)
    return version

"""All remote parts of one run, started together and stopped together."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors.canary import ray_canary
from actors.encoder import RayEncoder
from actors.generator import RayGenerator, generator_creator, generator_limits
from actors.learner.learner import RayLearner
from actors.learner.rank_group import resources_for
from actors.placement import Placement, check_feasible, live_nodes, place, wait_until_serving
from actors.pool.pool import ElasticPool
from actors.reference import RayReferenceUpdater
from actors.reward import RayScorer, start_scorer
from actors.store.archive import RayArchive
from actors.store.kept_latents import KeepingScorer
from actors.store.weights import create_weight_store
from videorl.config import Recipe
from videorl.data.prompts import open_prompts
from videorl.evaluation.unseen import UnseenMetrics
from videorl.loop import Parts, Progress
from videorl.policies import load_policy
from videorl.protocols import MetricSink
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.folder import RunFolder


@dataclass(frozen=True)
class Assembly:
    """The running parts, and where the run stands."""

    parts: Parts
    progress: Progress
    generator: RayGenerator
    scorer: RayScorer
    learner: RayLearner
    archive: RayArchive
    started_in_s: float
    pools: dict[str, ElasticPool]
    """By name: `generator`, or that of a reward model."""


@contextmanager
def assemble(recipe: Recipe, folder: RunFolder, sink: MetricSink) -> Iterator[Assembly]:
    """Start every part at once, restore the newest checkpoint, and cut the archive back to it.

    Raises:
        ResourceError: The cluster can never hold the recipe's workers.
        PoolFailedError: Workers of a pool cannot start.
        LearnerFailedError: The learner cannot start.
        RunFolderError: There is no checkpoint any more of what the run has done.
    """
    started = time.perf_counter()
    prompts = open_prompts(recipe.prompts, recipe.seed)
    nodes = live_nodes()
    placement = place(recipe, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    with ExitStack() as stack:
        store = create_weight_store(keep=recipe.rollouts.max_staleness + 1)
        learner = RayLearner(
            recipe, folder.root, store, resources_for(placement.learner, recipe.learner)
        )
        learner.begin()
        stack.callback(learner.close)
        generator, scorer = start_pools(recipe, placement, store, stack)
        archive = RayArchive(folder.archive, recipe.archive)
        stack.callback(archive.close)
        wait_until_serving([generator.pool, *scorer.pools], placement)
        restored = learner.restored()
        note = CheckpointNote(folder.root, recipe.checkpoint)
        note.restored(restored.loop_state)
        progress = Progress(restored.versions[-1].step, list(restored.versions))
        reference = RayReferenceUpdater(learner, recipe.reference.interval, restored.versions[-1])
        stack.callback(reference.close)
        if restored.loop_state is not None:
            reference.restore(restored.loop_state["reference"])
        archive.truncate(progress.step)
        select = recipe.example_source()
        parts = Parts(
            prompts,
            generator,
            KeepingScorer(scorer, select),
            select,
            learner,
            reference,
            archive,
            sink,
            ray_canary(recipe.seed, recipe.rollouts.canary_tolerance, generator, learner),
            note,
        )
        started_in_s = time.perf_counter() - started
        names = ("generator", *(reward.key for reward in recipe.rewards))
        pools = dict(zip(names, (generator.pool, *scorer.pools), strict=True))
        yield Assembly(parts, progress, generator, scorer, learner, archive, started_in_s, pools)


def start_pools(
    recipe: Recipe, placement: Placement, store: Any, stack: ExitStack
) -> tuple[RayGenerator, RayScorer]:
    """Start encoder, generators and reward workers; `stack` stops them."""
    encoder = RayEncoder(loader(recipe, "text_encoder"), placement.encoder.options())
    stack.callback(encoder.close)
    create_worker = generator_creator(
        loader(recipe, "transformer", "vae"), store, placement.generators.options()
    )
    limits = generator_limits(recipe.generators)
    generator = RayGenerator(create_worker, encoder, recipe.sampling.negative_prompt, limits)
    stack.callback(generator.close)
    scorer = start_scorer(
        recipe.rewards, placement.rewards, UnseenMetrics(tuple(recipe.metrics.unseen))
    )
    stack.callback(scorer.close)
    return generator, scorer


def loader(recipe: Recipe, *names: str) -> Any:
    """Return a function of a device that loads these parts of the recipe's policy."""
    return partial(_load, recipe, frozenset(names))


def _load(recipe: Recipe, names: frozenset[str], device: Any) -> Any:
    return load_policy(recipe.policy, recipe.sampling, parts=names, device=device, seed=recipe.seed)

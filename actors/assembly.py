"""All remote parts of one run, started together and stopped together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from actors.canary import ray_canary
from actors.encoder import RayEncoder
from actors.generator import RayGenerator, generator_creator
from actors.learner.commands import Restored
from actors.learner.learner import RayLearner
from actors.learner.rank_group import resources_for
from actors.naming import run_name
from actors.placement import Placement, check_feasible, live_nodes, place, wait_until_serving
from actors.pool.limits import encoder_limits, generator_limits
from actors.pool.metrics import PoolSizesSink
from actors.pool.places import Places
from actors.pool.pool import ElasticPool
from actors.processes.followers import Sharing
from actors.processes.policy_loading import loader, sharing_loader
from actors.reference import RayReferenceUpdater
from actors.reward import RayScorer, start_scorer
from actors.seats.booking import Booking, book
from actors.store.archive import RayArchive
from actors.store.kept_latents import Keepers, KeepingScorer
from actors.store.video_files import EncodingScorer
from actors.store.weights import weight_store
from videorl.config import Recipe
from videorl.data.prompts import open_prompts
from videorl.errors import StoppedError, WeightMismatchError
from videorl.evaluation.unseen import UnseenMetrics
from videorl.loop import Parts, Progress
from videorl.policies.compiling import GENERATORS_UNCOMPILED
from videorl.protocols import MetricSink
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import open_checkpoints
from videorl.run.folder import RunFolder
from videorl.run.progress import progress
from videorl.types import WeightVersion

First: TypeAlias = Callable[[RayGenerator, RayScorer, WeightVersion], bool]
"""What is done with generators, reward models and the base, while the learner starts; whether to go
on."""


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
    places: Places
    """Says who has what of the cluster."""
    pools: dict[str, ElasticPool]
    """By name: `generator`, `encoder`, or that of a reward model."""

    def watched(self, sink: MetricSink) -> PoolSizesSink:
        """Return a sink that adds pools, faults and the work of all workers to each step."""
        return watched(sink, self.pools, self.generator, self.scorer)


@contextmanager
def assemble(
    recipe: Recipe,
    folder: RunFolder,
    sink: MetricSink,
    first: First | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[Assembly]:
    """Start every part, restore the newest checkpoint, and cut the archive back to it.

    Args:
        recipe: The run.
        folder: Its folder.
        sink: Of its metrics.
        first: Done while the learner starts, then last of all, if it may; None = all at once. It
            returns whether to go on.
        should_stop: Asked while the run waits for places on the cluster, and for all to load.

    Raises:
        ResourceError: The cluster can never hold the recipe's workers.
        PoolFailedError: Workers of a pool cannot start.
        LearnerFailedError: The learner cannot start.
        WeightMismatchError: The learner starts from other weights than generators do.
        RunFolderError: There is no checkpoint any more of what the run has done.
        StoppedError: `first` or `should_stop` says to stop.
    """
    started = time.perf_counter()
    prompts = open_prompts(recipe)
    nodes = live_nodes()
    placement = place(recipe, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    run = run_name(recipe)
    first = first if _may_start_late(recipe, folder, placement) else None
    keepers = _keepers(recipe, run)
    with ExitStack() as stack:
        stack.callback(keepers.close)
        places = Places(placement)
        booking = stack.enter_context(book(recipe, placement, places, should_stop))
        store = stack.enter_context(weight_store(recipe.versions_sampled, run))
        resources = resources_for(placement.learner, recipe.learner, booking)
        learner = RayLearner(recipe, folder.root, store, resources, places)
        stack.callback(learner.close)
        if first is None:
            learner.begin()
        generator, scorer = start_pools(recipe, placement, booking, store, stack)
        places.pools = pools_by_role(placement, generator, scorer)
        archive = RayArchive(folder.archive, recipe.archive, run)
        stack.callback(archive.close)
        workers = (generator, scorer)
        restored, first_s = _restored(learner, workers, places, should_stop, first)
        note = CheckpointNote(folder.root, recipe.checkpoint)
        note.restored(restored.loop_state)
        progress = Progress(restored.versions[-1].step, list(restored.versions))
        reference = RayReferenceUpdater(
            learner, recipe.reference.interval, restored.versions[-1], run
        )
        stack.callback(reference.close)
        if restored.loop_state is not None:
            reference.restore(restored.loop_state["reference"])
        archive.truncate(progress.step)
        select = recipe.example_source()
        encoding = EncodingScorer(scorer, scorer.files, select, recipe.archive)
        parts = Parts(
            prompts,
            generator,
            KeepingScorer(encoding, select, keepers),
            select,
            learner,
            reference,
            archive,
            sink,
            ray_canary(recipe.seed, recipe.rollouts.canary_tolerance, generator, learner),
            note,
        )
        started_in_s = time.perf_counter() - started - first_s
        pools = named_pools(recipe, *workers)
        yield Assembly(parts, progress, *workers, learner, archive, started_in_s, places, pools)


def _keepers(recipe: Recipe, run: str) -> Keepers:
    """Return what keeps latents; refuse nodes for it that the cluster does not have."""
    keepers = Keepers(recipe.cluster.keep_latents_on, run)
    if not recipe.cluster.can_grow:
        keepers.check()
    return keepers


def watched(
    sink: MetricSink, pools: Mapping[str, ElasticPool], generator: RayGenerator, scorer: RayScorer
) -> PoolSizesSink:
    """Return a sink that adds pools, faults and the work of all workers to each step."""
    faults = {GENERATORS_UNCOMPILED: generator.num_uncompiled}
    return PoolSizesSink(sink, pools, faults, partial(work_seconds, generator, scorer))


def work_seconds(generator: RayGenerator, scorer: RayScorer) -> dict[str, float]:
    """Return the seconds that all workers have spent in each stage of their work so far."""
    sampling = {
        name.removesuffix("_s"): stage.seconds for name, stage in generator.stages().items()
    }
    return {**sampling, "score": scorer.score_s, "encode_mp4": scorer.files.encode_s}


def _may_start_late(recipe: Recipe, folder: RunFolder, placement: Placement) -> bool:
    """Return whether a run begins here, and its learner's share stays free until others are up.

    Not so where a pool may grow, which it does while it waits. With a GPU of its own a learner
    takes nobody's time while it loads, so it need not wait either; and where a model may be too
    large, a rehearsal comes first. In half precision a new adapter is not the same in both.
    """
    sizes = [(recipe.generators.min_workers, recipe.generators.max_workers)]
    pools = (recipe.encoder, *recipe.rewards)
    sizes += [(pool.num_workers, pool.most_workers) for pool in pools]
    is_fixed = all(least == most for least, most in sizes)
    is_small = recipe.policy.dtype == "float32" and not placement.num_gpus()
    if not (is_fixed and is_small) or recipe.rehearsal == "always":
        return False
    return not open_checkpoints(recipe.checkpoint, folder.root).steps()


def _restored(
    learner: RayLearner,
    workers: tuple[RayGenerator, RayScorer],
    places: Places,
    should_stop: Callable[[], bool],
    first: First | None,
) -> tuple[Restored, float]:
    """Return where the learner stands when all is up, and the seconds of what came first."""
    pools = all_pools(*workers)
    if first is None:
        return _all_up(learner, pools, places, should_stop), 0.0
    wait_until_serving(pools, places, should_stop)
    learner.begin()
    begun, base = time.perf_counter(), workers[0].publish_base()
    if not first(*workers, base):
        raise StoppedError("stopped before the learner was up")
    first_s = time.perf_counter() - begun
    restored = _all_up(learner, pools, places, should_stop)
    _check_base(base, restored)
    return restored, first_s


def _check_base(base: WeightVersion, restored: Restored) -> None:
    """Refuse a learner that starts from other weights than those that were published for it."""
    if (found := restored.versions[-1]) != base:
        raise WeightMismatchError(
            f"generators start from weights {base.digest[:12]}, but the learner from "
            f"{found.digest[:12]} (step {found.step}): they do not read the same model"
        )


def _all_up(
    learner: RayLearner,
    pools: list[ElasticPool],
    places: Places,
    should_stop: Callable[[], bool],
) -> Restored:
    """Wait until every part has loaded its model; show how many have."""
    with progress("parts with their models loaded", len(pools) + 1) as reach:
        for number, pool in enumerate(pools, 1):
            wait_until_serving([pool], places, should_stop)
            reach(number)
        restored = learner.restored(should_stop)
        reach(len(pools) + 1)
    return restored


def all_pools(generator: RayGenerator, scorer: RayScorer) -> list[ElasticPool]:
    """Return the pools of generators, of encoders and of each reward model, in this order."""
    return [generator.pool, generator.encoder.pool, *scorer.pools]


def named_pools(
    recipe: Recipe, generator: RayGenerator, scorer: RayScorer
) -> dict[str, ElasticPool]:
    """Return the pools by the names that `Assembly.pools` has."""
    names = ("generator", "encoder", *(reward.key for reward in recipe.rewards))
    return dict(zip(names, all_pools(generator, scorer), strict=True))


def pools_by_role(
    placement: Placement, generator: RayGenerator, scorer: RayScorer
) -> dict[str, ElasticPool]:
    """Return the pool of each role that has one."""
    roles = (placement.generators, placement.encoder, *placement.rewards)
    names = [role.name for role in roles]
    return dict(zip(names, all_pools(generator, scorer), strict=True))


def start_pools(
    recipe: Recipe, placement: Placement, booking: Booking, store: Any, stack: ExitStack
) -> tuple[RayGenerator, RayScorer]:
    """Start encoder, generators and reward workers in the run's places; `stack` stops them."""
    generator = start_generators(recipe, placement, booking, store, stack)
    unseen = UnseenMetrics(tuple(recipe.metrics.unseen))
    kept = [booking.seats(role) for role in placement.rewards]
    scorer = start_scorer(recipe.rewards, placement.rewards, unseen, run_name(recipe), kept)
    stack.callback(scorer.close)
    return generator, scorer


def start_generators(
    recipe: Recipe, placement: Placement, booking: Booking, store: Any, stack: ExitStack
) -> RayGenerator:
    """Start encoder and generators in the run's places; `stack` stops them."""
    run, load_text = run_name(recipe), loader(recipe, "text_encoder")
    limits = encoder_limits(recipe.encoder)
    encoder = RayEncoder(
        load_text, placement.encoder.options(), limits, run, booking.seats(placement.encoder)
    )
    stack.callback(encoder.close)
    followers = sharing_loader(recipe, "transformer")
    sharing = Sharing(recipe.generators.context_parallel, followers)
    load = sharing_loader(recipe, "transformer", "vae")
    options, seats = placement.generators.options(), booking.seats(placement.generators)
    create_worker = generator_creator(load, store, options, sharing, run, seats)
    limits = generator_limits(recipe.generators)
    generator = RayGenerator(create_worker, encoder, recipe.sampling.negative_prompt, limits, seats)
    stack.callback(generator.close)
    return generator

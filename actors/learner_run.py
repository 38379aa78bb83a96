"""A run whose learner is alone, on Ray: from stored pairs, or from prompts alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.assembly import named_pools, pools_by_role, start_pools, watched
from actors.encoder import RayEncoder
from actors.evaluation import compare, comparison_placement
from actors.learner.learner import RayLearner
from actors.learner.notices import Notices
from actors.learner.rank_group import resources_for
from actors.monitoring.sink import ray_metrics
from actors.naming import run_name
from actors.placement import (
    Placement,
    check_feasible,
    live_nodes,
    place_training,
    wait_until_serving,
    why_beside,
)
from actors.pool.control import controlled
from actors.pool.limits import encoder_limits
from actors.pool.places import Places
from actors.pool.pool import ElasticPool
from actors.processes.archive_encoding import encode_parts
from actors.processes.policy_loading import loader
from actors.rehearsal import cluster_devices
from actors.seats.booking import Booking, book
from actors.store.weights import weight_store
from videorl.config import Recipe
from videorl.data.preference_videos import has_videos
from videorl.data.preferences import read_preferences
from videorl.data.prompts import open_prompts
from videorl.errors import ResourceError, StoppedError
from videorl.evaluation.during import DuringTraining, NoEvaluation, open_during
from videorl.learning.loop import Around, run_learner
from videorl.learning.prompts import PromptExamples
from videorl.learning.stored_pairs import (
    PROBE,
    PairStream,
    check_shape,
    encode_archive,
    probe_sampling,
)
from videorl.protocols import MetricSink
from videorl.report.ending import finish, keep_evaluation, kept_groups, version_to_json
from videorl.run.folder import RunFolder
from videorl.run.sinks import FanOut, open_sinks
from videorl.run.stages import Stages
from videorl.types import SampleRequest, WeightVersion


def run_learner_only(
    recipe: Recipe,
    folder: RunFolder,
    should_stop: Callable[[], bool],
    stages: Stages | None = None,
) -> bool:
    """Run the recipe on the Ray that is connected; return whether it reached its end.

    Base and aligned policy are compared when the learner has left: the generators take its place.
    Held-out prompts in between (`evaluation.interval`) have generators and reward workers beside
    the learner.
    """
    started, stages = time.perf_counter(), stages or Stages()
    if recipe.evaluation.source:
        _check_comparison(recipe)
    stages.begin("starting the learner, and training", recipe.num_steps, "step")
    with open_sinks(recipe, folder) as sinks:
        try:
            if not _train(recipe, folder, should_stop, sinks):
                return False
        except StoppedError:  # while it waited for places, or for latents of stored videos
            return False
        facts: dict[str, Any] = {"num_steps": recipe.num_steps}
        if recipe.evaluation.source:
            stages.begin("starting workers, and evaluating base and aligned policy")
            kept = partial(kept_groups, recipe, folder)
            found = compare(recipe, folder, kept, should_stop)
            if found is None:
                return False
            keep_evaluation(folder, "before", found.base)
            keep_evaluation(folder, "after", found.aligned)
            facts["policy_version"] = version_to_json(found.version)
        stages.begin("writing the report")
        facts["seconds"] = time.perf_counter() - started
        finish(recipe, folder, {**facts, "stages": stages.over()}, sinks.summary)
    return True


def _check_comparison(recipe: Recipe) -> None:
    """Refuse a comparison that has no room now, rather than when training is over."""
    try:
        comparison_placement(recipe, live_nodes())
    except ResourceError as error:
        raise ResourceError(
            f"{error}. This is to compare base and aligned policy when training is over: "
            'evaluation.source="" leaves it out'
        ) from error


def _train(
    recipe: Recipe, folder: RunFolder, should_stop: Callable[[], bool], sinks: FanOut
) -> bool:
    """Train, and export the policy; return whether it reached its last step."""
    placement = _placement(recipe)
    is_offline = bool(recipe.offline.archive)
    places = Places(placement)
    if is_offline and has_videos(Path(recipe.offline.archive)):
        encode = partial(encode_parts, placement.encoder, places, should_stop)
        encode_archive(recipe, folder, encode)
    with (
        book(recipe, placement, places, should_stop) as booking,
        _beside_learner(recipe, folder, placement, booking, places, should_stop) as beside,
    ):
        resources = resources_for(placement.learner, recipe.learner, booking)
        start = partial(RayLearner, run_dir=folder.root, weight_store=beside.weights)
        start = partial(start, resources=resources, places=places, should_stop=should_stop)
        learn = _from_pairs if is_offline else _from_prompts
        return learn(recipe, folder, start, beside, should_stop, sinks)


@dataclass(frozen=True)
class _Beside:
    """Who works beside the learner."""

    encoder: RayEncoder
    weights: ActorHandle | None = None
    """The store that the learner publishes to; None = nobody samples from its weights."""
    pools: Mapping[str, ElasticPool] = field(default_factory=dict[str, ElasticPool])
    """By name, those that monitoring shows."""
    wait: Callable[[], None] = lambda: None
    """Returns when all can work, or raises why they never will."""
    watched: Callable[[MetricSink], MetricSink] = lambda sink: sink
    """As in `videorl.learning.loop.Around`."""
    during: Callable[[int], DuringTraining | NoEvaluation] = lambda step: NoEvaluation()
    """Likewise."""


@contextmanager
def _beside_learner(
    recipe: Recipe,
    folder: RunFolder,
    placement: Placement,
    booking: Booking,
    places: Places,
    should_stop: Callable[[], bool],
) -> Iterator[_Beside]:
    """Start what works beside the learner, inside the block; it loads while the learner does.

    Args:
        recipe: The run; `evaluation.interval` asks for generators and reward workers.
        folder: Its folder.
        placement: What each role needs, by `place_training`.
        booking: The places of the run.
        places: Is told of the pools.
        should_stop: Asked while they are waited for.
    """
    if not recipe.has_pools:
        options, seats = placement.encoder.options(), booking.seats(placement.encoder)
        load, limits = loader(recipe, "text_encoder"), encoder_limits(recipe.encoder)
        with closing(RayEncoder(load, options, limits, run_name(recipe), seats)) as encoder:
            places.pools = {"encoder": encoder.pool}
            yield _Beside(encoder)
        return
    with ExitStack() as stack:
        store = stack.enter_context(weight_store(recipe.versions_sampled, run_name(recipe)))
        workers = start_pools(recipe, placement, booking, store, stack)
        places.pools = pools_by_role(placement, *workers)
        pools = named_pools(recipe, *workers)
        stack.enter_context(controlled(folder, pools, places))
        yield _Beside(
            workers[0].encoder,
            store,
            pools,
            lambda: wait_until_serving(pools.values(), places, should_stop),
            lambda sink: watched(sink, pools, *workers),
            partial(open_during, recipe, folder.root, workers=workers, is_beside=True),
        )


def _placement(recipe: Recipe) -> Placement:
    """Return what is needed while the run learns, if the cluster can ever hold it."""
    nodes = live_nodes()
    placement = place_training(recipe, nodes)
    with why_beside(recipe):
        check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    return placement


def _from_prompts(
    recipe: Recipe,
    folder: RunFolder,
    start: Callable[[Recipe], RayLearner],
    beside: _Beside,
    should_stop: Callable[[], bool],
    sinks: FanOut,
) -> bool:
    encode = beside.encoder.encode_here
    prompts = PromptExamples(open_prompts(recipe), recipe.sampling.negative_prompt, encode)
    learner = start(recipe)
    with _around(recipe, folder, learner, beside, sinks) as around:
        return run_learner(recipe, folder, learner, prompts, should_stop, around)


def _from_pairs(
    recipe: Recipe,
    folder: RunFolder,
    start: Callable[[Recipe], RayLearner],
    beside: _Beside,
    should_stop: Callable[[], bool],
    sinks: FanOut,
) -> bool:
    """Read latents on this machine, and hand them to the ranks through the object store."""
    archive, encode = Path(recipe.offline.archive), beside.encoder.encode_here
    preferences = read_preferences(folder.latents if has_videos(archive) else archive)
    probing = replace(recipe, sampling=probe_sampling(recipe))
    learner = start(probing)

    def check(version: WeightVersion) -> None:
        request = SampleRequest(0, PROBE, (0,), version)
        embeds = encode(PROBE.condition)
        check_shape(preferences, learner.sample(request, embeds, embeds))

    pairs = PairStream(preferences, encode, recipe.seed, put=ray.put)
    with _around(recipe, folder, learner, beside, sinks, check) as around:
        return run_learner(recipe, folder, learner, pairs, should_stop, around)


@contextmanager
def _around(
    recipe: Recipe,
    folder: RunFolder,
    learner: RayLearner,
    beside: _Beside,
    sinks: FanOut,
    check: Callable[[WeightVersion], None] = lambda version: None,
) -> Iterator[Around]:
    """Give what the loop gets from here; `check` is as of `Around`."""

    def checked(version: WeightVersion) -> None:
        beside.wait()
        check(version)

    with ray_metrics(recipe, folder, beside.pools) as metrics:
        yield Around(
            checked,
            cluster_devices(),
            sinks,
            [metrics],
            Notices(learner),
            beside.during,
            beside.watched,
        )

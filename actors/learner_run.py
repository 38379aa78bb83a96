"""A run whose learner is alone, on Ray: from stored pairs, or from prompts alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray

from actors.encoder import RayEncoder
from actors.evaluation import compare, comparison_placement
from actors.learner.learner import RayLearner
from actors.learner.notices import Notices
from actors.learner.rank_group import resources_for
from actors.monitoring.sink import ray_metrics
from actors.naming import run_name
from actors.placement import check_feasible, live_nodes, place_learner_and_encoder
from actors.pool.limits import encoder_limits
from actors.pool.places import Places
from actors.processes.archive_encoding import encode_parts
from actors.processes.policy_loading import loader
from actors.rehearsal import cluster_devices
from actors.seats.booking import book
from videorl.config import Recipe
from videorl.data.preference_videos import has_videos
from videorl.data.preferences import read_preferences
from videorl.data.prompts import open_prompts
from videorl.errors import ResourceError, StoppedError
from videorl.learning.loop import Around, run_learner
from videorl.learning.prompts import PromptExamples
from videorl.learning.stored_pairs import (
    PROBE,
    PairStream,
    check_shape,
    encode_archive,
    probe_sampling,
)
from videorl.report.ending import finish, keep_evaluation, kept_groups, version_to_json
from videorl.run.folder import RunFolder
from videorl.run.sinks import FanOut, open_sinks
from videorl.run.stages import Stages
from videorl.types import Condition, SampleRequest, WeightVersion

logger = logging.getLogger(__name__)

Encode = Callable[[Condition], Any]
"""Prompt -> handle of its embedding."""


def run_learner_only(
    recipe: Recipe,
    folder: RunFolder,
    should_stop: Callable[[], bool],
    stages: Stages | None = None,
) -> bool:
    """Run the recipe on the Ray that is connected; return whether it reached its end.

    Base and aligned policy are compared when the learner has left: the generators take its place.
    """
    started, stages = time.perf_counter(), stages or Stages()
    if recipe.evaluation.interval_in_use:
        logger.warning(
            "evaluation.interval=%d: a learner that is alone on Ray is evaluated only when it has "
            "left, and the guard does not watch it; videorl.train runs it in one process, watched",
            recipe.evaluation.interval,
        )
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
    nodes = live_nodes()
    placement = place_learner_and_encoder(recipe, nodes)
    check_feasible(placement, nodes, can_grow=recipe.cluster.can_grow)
    is_offline = bool(recipe.offline.archive)
    places = Places(placement)
    if is_offline and has_videos(Path(recipe.offline.archive)):
        encode = partial(encode_parts, placement.encoder, places, should_stop)
        encode_archive(recipe, folder, encode)
    with book(recipe, placement, places, should_stop) as booking:
        resources = resources_for(placement.learner, recipe.learner, booking)
        load, limits = loader(recipe, "text_encoder"), encoder_limits(recipe.encoder)
        options, seats = placement.encoder.options(), booking.seats(placement.encoder)
        with closing(RayEncoder(load, options, limits, run_name(recipe), seats)) as encoder:
            places.pools = {"encoder": encoder.pool}
            learn = _from_pairs if is_offline else _from_prompts
            start = partial(RayLearner, run_dir=folder.root, weight_store=None)
            start = partial(start, resources=resources, places=places)
            return learn(recipe, folder, start, encoder.encode_here, should_stop, sinks)


def _from_prompts(
    recipe: Recipe,
    folder: RunFolder,
    start: Callable[[Recipe], RayLearner],
    encode: Encode,
    should_stop: Callable[[], bool],
    sinks: FanOut,
) -> bool:
    stream = open_prompts(recipe)
    prompts = PromptExamples(stream, recipe.sampling.negative_prompt, encode)
    learner = start(recipe)
    with ray_metrics(recipe, folder) as metrics:
        around = Around(
            devices=cluster_devices(), opened=sinks, also=[metrics], is_warned=Notices(learner)
        )
        return run_learner(recipe, folder, learner, prompts, should_stop, around)


def _from_pairs(
    recipe: Recipe,
    folder: RunFolder,
    start: Callable[[Recipe], RayLearner],
    encode: Encode,
    should_stop: Callable[[], bool],
    sinks: FanOut,
) -> bool:
    """Read latents on this machine, and hand them to the ranks through the object store."""
    archive = Path(recipe.offline.archive)
    preferences = read_preferences(folder.latents if has_videos(archive) else archive)
    probing = replace(recipe, sampling=probe_sampling(recipe))
    learner = start(probing)

    def check(version: WeightVersion) -> None:
        request = SampleRequest(0, PROBE, (0,), version)
        embeds = encode(PROBE.condition)
        check_shape(preferences, learner.sample(request, embeds, embeds))

    pairs = PairStream(preferences, encode, recipe.seed, put=ray.put)
    with ray_metrics(recipe, folder) as metrics:
        around = Around(check, cluster_devices(), sinks, [metrics], Notices(learner))
        return run_learner(recipe, folder, learner, pairs, should_stop, around)

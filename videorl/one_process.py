"""A whole run in one process: the same parts, without a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from videorl.config import Recipe
from videorl.data.archive import Archive
from videorl.data.preference_videos import has_videos
from videorl.data.preferences import read_preferences
from videorl.data.prompts import check_sources, open_prompts
from videorl.data.video_io import write_mp4
from videorl.errors import WeightMismatchError
from videorl.evaluation.during import DuringTraining, NoEvaluation, open_during
from videorl.evaluation.fixed_prompts import open_fixed_prompts
from videorl.evaluation.held_out import sample_and_score
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.learning.learner import Learner
from videorl.learning.loop import Around, run_learner
from videorl.learning.prompts import PromptExamples
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.learning.stored_pairs import (
    PROBE,
    PairStream,
    check_archive,
    check_shape,
    encode_archive,
    probe_sampling,
)
from videorl.loop import Parts, Progress, train
from videorl.planning.fitting import own_memory_gib, with_micro_batch
from videorl.policies import load_policy
from videorl.policies.compiling import GENERATORS_UNCOMPILED
from videorl.policies.devices import own_devices
from videorl.protocols import DifferentiablePolicy, MetricSink
from videorl.rehearsal import Rehearsal, release
from videorl.report import write_report
from videorl.report.ending import (
    finish,
    keep_evaluation,
    kept_groups,
    show_finished,
    version_to_json,
)
from videorl.rewards.feed import load_configured
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.compute_type import with_compute_type
from videorl.run.folder import RunFolder
from videorl.run.published_weights import newest_weights
from videorl.run.rollback import guarded
from videorl.run.sinks import FanOut, open_sinks
from videorl.sampling.canary import Canary, canary_request, compare, explain
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import Video, WeightVersion
from videorl.weights import digest

_ALL_PARTS = frozenset({"transformer", "vae", "text_encoder"})

ShouldStop = Callable[[], bool]
"""Asked between steps."""


def run(recipe: Recipe, folder: RunFolder, should_stop: ShouldStop) -> bool:
    """Run the recipe, or go on with it, up to its report; return whether it reached its end."""
    if show_finished(folder, recipe.num_steps):
        return True
    check_sources(recipe)
    recipe = with_compute_type(recipe, folder.root, own_devices)
    recipe = with_micro_batch(recipe, own_memory_gib())
    started = time.perf_counter()
    return guarded(
        recipe,
        folder.root,
        lambda made: _run(made, folder, should_stop, started),
        lambda: write_report(folder.root),
    )


def _run(recipe: Recipe, folder: RunFolder, should_stop: ShouldStop, started: float) -> bool:
    """Do the same, until the guard says otherwise."""
    work = train_online if recipe.learns_online else train_alone
    with open_sinks(recipe, folder) as sinks:
        if not work(recipe, folder, should_stop, sinks):
            return False
        facts: dict[str, Any] = {"num_steps": recipe.num_steps}
        if recipe.evaluation.source:
            if (version := compare_policies(recipe, folder, should_stop)) is None:
                return False
            facts["policy_version"] = version_to_json(version)
        facts["seconds"] = time.perf_counter() - started
        finish(recipe, folder, facts, sinks.summary)
    return True


def train_online(
    recipe: Recipe, folder: RunFolder, should_stop: ShouldStop, sinks: FanOut | None = None
) -> bool:
    """Sample, score and learn; export the policy, and return whether it reached its last step.

    Args:
        recipe: The run.
        folder: Its folder.
        should_stop: Asked between steps.
        sinks: Open already, and left open; None = those of the recipe are opened and closed.
    """
    with open_sinks(recipe, folder, sinks) as sinks:
        parts, progress, learner = local_parts(recipe, folder, sinks)
        workers = parts.generator, parts.scorer
        fixed = open_fixed_prompts(
            recipe, folder.root, progress.step, workers, save_videos, sinks.videos
        )
        during = open_during(recipe, folder.root, progress.step, workers, is_beside=False)
        parts = replace(parts, fixed=fixed, during=during)
        with closing(learner), closing(fixed), closing(during):
            sinks.truncate(progress.step)
            rehearsal = Rehearsal(recipe, folder)
            rehearsal.whole_run(
                parts.generator, parts.scorer, learner, progress.versions[-1], lambda _: release()
            )
            if train(recipe, parts, progress, should_stop).step < recipe.num_steps:
                return False
            learner.export(folder.export)
    return True


def train_alone(
    recipe: Recipe, folder: RunFolder, should_stop: ShouldStop, sinks: FanOut | None = None
) -> bool:
    """Learn from stored pairs or from prompts alone; otherwise as `train_online`.

    Raises:
        ArchiveError: The archive cannot be learned from, or holds latents of another model.
    """
    if not recipe.offline.archive:
        learner, policy = _learner(recipe, folder, with_text_encoder=True)
        stream = open_prompts(recipe)
        negative_prompt = recipe.sampling.negative_prompt
        prompts = PromptExamples(stream, negative_prompt, lambda prompt: policy.encode([prompt])[0])
        around = Around(opened=sinks, during=_during(recipe, folder, learner))
        return run_learner(recipe, folder, learner, prompts, should_stop, around)
    check_archive(recipe, folder)
    if has_videos(archive := Path(recipe.offline.archive)):
        encode_archive(recipe, folder)
        archive = folder.latents
    preferences = read_preferences(archive)
    probing = replace(recipe, sampling=probe_sampling(recipe))
    learner, policy = _learner(probing, folder, with_text_encoder=True)
    check_shape(preferences, policy.sample(policy.encode([PROBE.condition])[0], None, [0]))
    pairs = PairStream(preferences, lambda prompt: policy.encode([prompt])[0], recipe.seed)
    around = Around(opened=sinks, during=_during(recipe, folder, learner))
    return run_learner(recipe, folder, learner, pairs, should_stop, around)


def _during(
    recipe: Recipe, folder: RunFolder, learner: Learner
) -> Callable[[int], DuringTraining | NoEvaluation]:
    """Return what opens the evaluations in between of a learner that has no generators.

    They need a second policy, which is loaded only then.
    """

    def opened(step: int) -> DuringTraining | NoEvaluation:
        if not recipe.evaluation.interval_in_use:
            return NoEvaluation()
        generator, scorer, _ = local_pools(recipe, learner.published)
        workers = generator, scorer
        return open_during(recipe, folder.root, step, workers, is_beside=False)

    return opened


def local_parts(
    recipe: Recipe, folder: RunFolder, sink: MetricSink
) -> tuple[Parts, Progress, Learner]:
    """Build or restore every part of an online run in this process."""
    learner, _ = _learner(recipe, folder)
    version, state = learner.start()
    note = CheckpointNote(folder.root, recipe.checkpoint)
    note.restored(state)
    curriculum = CurriculumReference(recipe.reference.interval, version)
    if state is not None:
        curriculum.restore(state["reference"])
    kept = recipe.archive
    archive = Archive(
        folder.archive, kept.videos, kept.latents, every=kept.every, keep_gb=kept.keep_gb
    )
    archive.truncate(version.step)
    generator, scorer, _ = local_pools(recipe, learner.published)
    parts = Parts(
        prompts=open_prompts(recipe),
        generator=generator,
        scorer=scorer,
        select=recipe.example_source(),
        learner=learner,
        reference=LocalReferenceUpdater(learner, curriculum),
        archive=archive,
        sink=CompilingSink(sink, generator),
        canary=local_canary(recipe.seed, recipe.rollouts.canary_tolerance, generator, learner),
        note=note,
    )
    return parts, Progress(version.step, learner.in_use()), learner


@dataclass(frozen=True)
class CompilingSink:
    """A sink of metrics that are told how often the generator sampled uncompiled, if ever."""

    sink: MetricSink
    generator: LocalGenerator

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of a step."""
        if found := self.generator.num_uncompiled():
            metrics = {**metrics, GENERATORS_UNCOMPILED: float(found)}
        self.sink.write(step, metrics)


def local_pools(
    recipe: Recipe, weights: Callable[[WeightVersion], Mapping[str, Any]]
) -> tuple[LocalGenerator, LocalScorer, dict[str, Any]]:
    """Return generator and scorer, and the weights that the policy was loaded with.

    Args:
        recipe: The run.
        weights: Looks up published weights.
    """
    policy = load_policy(recipe.policy, recipe.sampling, parts=_ALL_PARTS, seed=recipe.seed)
    models = {reward.key: load_configured(reward) for reward in recipe.rewards}
    generator = LocalGenerator(policy, recipe.sampling.negative_prompt, weights)
    return (
        generator,
        LocalScorer(models, recipe.rewards, UnseenMetrics(tuple(recipe.metrics.unseen))),
        policy.weights(),
    )


def compare_policies(
    recipe: Recipe, folder: RunFolder, should_stop: ShouldStop
) -> WeightVersion | None:
    """Sample and score the held-out prompts with base and newest checkpoint; None = stopped."""
    aligned, weights = newest_weights(recipe.checkpoint, folder.root)
    known = {aligned: weights}
    generator, scorer, base_weights = local_pools(recipe, lambda version: known[version])
    base = WeightVersion(0, digest(base_weights))
    known[base] = base_weights
    for name, version, samples in (
        ("before", base, recipe.evaluation.best_of),
        ("after", aligned, recipe.evaluation.samples),
    ):
        groups = sample_and_score(
            recipe,
            version,
            generator,
            scorer,
            samples=samples,
            should_stop=should_stop,
            kept=kept_groups(recipe, folder, name, version, save_videos),
        )
        if groups is None:
            return None
        keep_evaluation(folder, name, groups)
    return aligned


def save_videos(files: Mapping[Path, Video]) -> None:
    """Write videos as mp4 files."""
    for path, video in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, video)


def local_canary(
    seed: int, tolerance: float, generator: LocalGenerator, learner: Learner
) -> Canary:
    """Return the canary of a run in one process."""

    def check(version: WeightVersion) -> float:
        request = canary_request(seed, version)
        wanted = learner.sample(request, *generator.embeds(request.prompt.condition))
        try:
            return compare(generator.latents(request), wanted, version, tolerance)
        except WeightMismatchError as error:
            raise explain(version, error) from error

    return check


def _learner(
    recipe: Recipe, folder: RunFolder, *, with_text_encoder: bool = False
) -> tuple[Learner, DifferentiablePolicy]:
    return build_learner(
        recipe,
        folder.root,
        lambda module: LocalEngine(module, recipe.optimizer),
        with_text_encoder=with_text_encoder,
    )

"""An online run on Ray: base evaluation, training, final evaluation, export."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from actors.assembly import Assembly, assemble
from actors.generator import RayGenerator
from actors.learner.notices import Notices
from actors.monitoring.sink import ray_metrics
from actors.pool.control import controlled
from actors.rehearsal import rehearse
from actors.reward import RayScorer
from videorl.config import Recipe
from videorl.errors import StoppedError
from videorl.evaluation.during import DuringTraining, NoEvaluation, open_during
from videorl.evaluation.fixed_prompts import FixedPrompts, NoFixedPrompts, open_fixed_prompts
from videorl.evaluation.held_out import sample_and_score
from videorl.loop import train
from videorl.report import write_report
from videorl.report.ending import finish, keep_evaluation, kept_groups, version_to_json
from videorl.run.folder import RunFolder
from videorl.run.sinks import FanOut, fan_out, open_sinks
from videorl.run.stages import Stages
from videorl.types import WeightVersion

logger = logging.getLogger(__name__)

_EVALUATING = {"before": "evaluating the base", "after": "evaluating the aligned policy"}


def run_online(
    recipe: Recipe,
    folder: RunFolder,
    should_stop: Callable[[], bool],
    stages: Stages | None = None,
) -> bool:
    """Run the recipe on the Ray that is connected; return whether it reached its end."""
    started, stages = time.perf_counter(), stages or Stages()
    evaluation = _Evaluation(recipe, folder, should_stop, stages)
    stages.begin("starting workers and loading models")
    with open_sinks(recipe, folder) as sinks:
        try:
            facts = _run(recipe, folder, sinks, evaluation, started)
        except StoppedError:
            return False
        if facts is None:
            return False
        stages.begin("writing the report")
        finish(recipe, folder, {**facts, "stages": stages.over()}, sinks.summary)
    return True


def _run(
    recipe: Recipe, folder: RunFolder, sinks: FanOut, evaluation: _Evaluation, started: float
) -> dict[str, Any] | None:
    """Evaluate, train and export; return what is worth knowing of it, None if stopped before."""
    should_stop, stages = evaluation.should_stop, evaluation.stages
    first = evaluation.first if evaluation.is_due else None
    with (
        assemble(recipe, folder, sinks, first, should_stop) as assembly,
        controlled(folder, assembly.pools, assembly.places),
        closing(_fixed_prompts(recipe, folder, sinks, assembly)) as fixed,
        closing(_during(recipe, folder, assembly)) as during,
    ):
        sinks.truncate(assembly.progress.step)
        rehearse(recipe, folder, assembly)
        workers, newest = (assembly.generator, assembly.scorer), assembly.learner.newest
        if not evaluation("before", *workers, newest()):
            return None
        stages.begin("training", recipe.num_steps - assembly.progress.step, "step")
        with ray_metrics(recipe, folder, assembly.pools) as metrics:
            metrics.truncate(assembly.progress.step)
            sink = assembly.watched(fan_out([sinks, metrics]))
            notices = Notices(assembly.learner)
            parts = replace(assembly.parts, sink=sink, fixed=fixed, during=during)
            parts = replace(parts, is_warned=notices)
            progress = train(recipe, parts, assembly.progress, should_stop)
        write_report(folder.root)
        if progress.step < recipe.num_steps:
            return None
        assembly.learner.export(folder.export)
        if not evaluation("after", *workers, newest()):
            return None
        facts = _facts(assembly, progress.step, time.perf_counter() - started)
        stages.begin("stopping workers")
        return facts


def _fixed_prompts(
    recipe: Recipe, folder: RunFolder, sinks: FanOut, assembly: Assembly
) -> FixedPrompts | NoFixedPrompts:
    # Not by the scorer of the parts, which keeps the latents of what is learned from.
    workers, step = (assembly.generator, assembly.scorer), assembly.progress.step
    return open_fixed_prompts(
        recipe, folder.root, step, workers, assembly.scorer.files.save, sinks.videos
    )


def _during(recipe: Recipe, folder: RunFolder, assembly: Assembly) -> DuringTraining | NoEvaluation:
    workers, step = (assembly.generator, assembly.scorer), assembly.progress.step
    return open_during(recipe, folder.root, step, workers, is_beside=True)


@dataclass(frozen=True)
class _Evaluation:
    """Samples and scores the held-out prompts of a run, with base or aligned policy."""

    recipe: Recipe
    folder: RunFolder
    should_stop: Callable[[], bool]
    stages: Stages

    @property
    def is_due(self) -> bool:
        """Whether the base is to be evaluated, and is not yet."""
        return (
            bool(self.recipe.evaluation.source)
            and not (self.folder.evaluation / "before.json").exists()
        )

    def first(self, generator: RayGenerator, scorer: RayScorer, base: WeightVersion) -> bool:
        """Evaluate the base while the learner starts; return False if stopped."""
        if not self("before", generator, scorer, base):
            return False
        self.stages.begin("starting the learner")
        return True

    def __call__(
        self, name: str, generator: RayGenerator, scorer: RayScorer, version: WeightVersion
    ) -> bool:
        """Evaluate a version, unless that is done or not wanted; return False if stopped."""
        recipe, folder = self.recipe, self.folder
        if not (self.is_due if name == "before" else recipe.evaluation.source):
            return True
        if name == "before" and version.step > 0:
            logger.warning(
                "the base was not evaluated before training began; it cannot be any more"
            )
            return True
        samples = recipe.evaluation.best_of if name == "before" else recipe.evaluation.samples
        self.stages.begin(_EVALUATING[name], recipe.evaluation.num_prompts * samples, "video")
        kept = kept_groups(recipe, folder, name, version, scorer.files.save)
        groups = sample_and_score(
            recipe,
            version,
            generator,
            scorer,
            samples=samples,
            should_stop=self.should_stop,
            kept=kept,
        )
        if groups is None:
            return False
        keep_evaluation(folder, name, groups)
        return True


def _facts(assembly: Assembly, num_steps: int, seconds: float) -> dict[str, Any]:
    """Return what is worth knowing of this session beside the metrics."""
    generators = assembly.generator.pool.stats()
    return {
        "num_steps": num_steps,
        "seconds": seconds,
        "startup_seconds": assembly.started_in_s,
        "policy_version": version_to_json(assembly.learner.newest()),
        "reference": assembly.parts.reference.state(),
        "generators": {
            "requests": generators.completed,
            "retried": generators.retried,
            "workers_replaced": generators.replaced,
            "busy_share": generators.busy_s / generators.ready_s if generators.ready_s else 0.0,
        },
        "learner_starts": assembly.learner.starts(),
        "learner_ranks": assembly.learner.num_ranks(),
    }

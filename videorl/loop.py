"""Online curriculum DPO (OnlineVPO, arXiv 2412.15159, algorithm 1) on one screen.

The parts may be local objects or pools of remote workers; the loop cannot tell, and holds only
metadata and handles.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from videorl.config import Recipe
from videorl.data.prompts import PromptStream
from videorl.errors import RoundsLostError
from videorl.evaluation.during import DuringTraining, NoEvaluation
from videorl.evaluation.fixed_prompts import FixedPrompts, NoFixedPrompts
from videorl.protocols import (
    Archive,
    Generator,
    Learner,
    MetricSink,
    ReferenceUpdater,
    Scorer,
    SelectionRule,
)
from videorl.rollouts import Rollouts
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoint_writer import Checkpoints
from videorl.run.empty_rounds import EmptyRounds
from videorl.sampling.canary import Canary, is_due
from videorl.step_record import record_step, round_metrics, stage_times
from videorl.types import WeightVersion


@dataclass(frozen=True)
class Parts:
    """Everything the loop needs."""

    prompts: PromptStream
    generator: Generator
    scorer: Scorer
    select: SelectionRule
    learner: Learner
    reference: ReferenceUpdater
    archive: Archive
    sink: MetricSink
    canary: Canary | None = None
    """Compares generators with the learner, as often as the recipe says; None = never."""
    note: CheckpointNote | None = None
    """Told of every checkpoint; None = the run has no folder."""
    fixed: FixedPrompts | NoFixedPrompts = field(default_factory=NoFixedPrompts)
    """Samples the same prompts again and again."""
    is_warned: Callable[[], bool] = lambda: False
    """Says once of each notice that the learner will lose its place: a checkpoint is begun."""
    during: DuringTraining | NoEvaluation = field(default_factory=NoEvaluation)
    """Evaluates now and then."""

    def begin_beside(self, version: WeightVersion) -> None:
        """Begin what is sampled of a version beside training."""
        self.fixed.begin(version)
        self.during.begin(version)

    def settle_beside(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Wait for what was begun before `step`; return False if `should_stop` said so first."""
        return self.fixed.settle(step, should_stop) and self.during.settle(step, should_stop)

    def beside_metrics(
        self, step: int = 0, logged: Mapping[str, float] | None = None
    ) -> dict[str, float]:
        """Return what to log of it, beside what a step logs anyway; None = it is of no step."""
        return {**self.fixed.metrics(), **self.during.metrics(step, logged)}


@dataclass
class Progress:
    """Where a run stands: what the learner restored, then what it reached."""

    step: int
    versions: list[WeightVersion]
    """Published versions still in use, oldest first; the last one is the policy."""


def train(
    recipe: Recipe, parts: Parts, progress: Progress, should_stop: Callable[[], bool]
) -> Progress:
    """Run optimizer steps until `recipe.num_steps`, or until `should_stop`.

    It is asked between two steps, and while a round is waited for, which is given up then.

    Raises:
        RoundsLostError: Several rounds in a row were lost whole.
        CanaryError: No generator samples what the learner samples.
        PoolFailedError: No worker of a pool can be started any more.
        GuardError: Videos get worse while the reward rises.
        Of all, and of whatever else ends the run while the learner waits, a checkpoint is written
        first.
    """
    rollouts = Rollouts(recipe, parts.prompts, parts.generator, parts.scorer, progress.step)
    rollouts.admit(progress.versions)
    for version in progress.versions:  # the run may have ended before an older one was sampled
        parts.begin_beside(version)
    parts.beside_metrics()  # what that took is of no step
    empty = EmptyRounds()
    with Checkpoints(
        parts.archive,
        parts.learner,
        parts.reference,
        progress.step,
        parts.note,
        recipe.checkpoint.timeout_s,
        parts.during.worth_keeping,
    ) as checkpoints:
        asked = checkpoints.asking(should_stop, parts.is_warned, lambda: progress.step)
        while progress.step < recipe.num_steps and not asked():
            step, started = progress.step, time.perf_counter()
            with checkpoints.before_errors(step):
                checked = check_canary(recipe, parts, progress)
                is_there = rollouts.wait(step, asked)
                if not (is_there and parts.settle_beside(step, asked)):
                    break
                taken = rollouts.take(step)
                examples = [example for group in taken.groups for example in parts.select(group)]
            output = parts.learner.step(step, examples)
            reference = parts.reference.after_step(output.version)
            oldest = output.version.step - recipe.rollouts.max_staleness
            kept = [version for version in progress.versions if version.step >= oldest]
            progress = Progress(step + 1, [*kept, output.version])
            rollouts.admit(progress.versions)
            parts.begin_beside(output.version)
            record = record_step(step, taken, examples, output.version, reference, recipe.pair_rule)
            parts.archive.write(record)
            empty.add(record)
            metrics = {**round_metrics(record, output, taken.wait_s), **checked}
            metrics |= parts.beside_metrics(step, metrics)
            times = stage_times(metrics, time.perf_counter() - started)
            parts.sink.write(step, {**metrics, **times})
            if _is_to_be_saved(recipe, parts, progress.step):
                checkpoints.begin(progress.step)
            if empty.are_too_many:
                break
        checkpoints.finish(progress.step)
    if empty.are_too_many:
        raise RoundsLostError(empty.why())
    if progress.step >= recipe.num_steps:
        parts.fixed.finish(progress.versions[-1], should_stop)
    return progress


def _is_to_be_saved(recipe: Recipe, parts: Parts, step: int) -> bool:
    """Tell whether a step has a checkpoint: every so many, and where its weights are evaluated."""
    interval = recipe.checkpoint.interval
    return bool(interval and step % interval == 0) or parts.during.is_due(step)


def check_canary(recipe: Recipe, parts: Parts, progress: Progress) -> dict[str, float]:
    """Compare generators with the learner if it is due; return what to log of it."""
    version = progress.versions[-1]
    if parts.canary is None or not is_due(recipe.rollouts, version):
        return {}
    return {"canary/difference": parts.canary(version)}

"""Online curriculum DPO (OnlineVPO, arXiv 2412.15159, algorithm 1) on one screen.

The parts may be local objects or pools of remote workers; the loop cannot tell, and holds only
metadata and handles.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from videorl.config import Recipe
from videorl.data.prompts import PromptStream
from videorl.errors import RoundsLostError
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
        Of all, and of whatever else ends the run while the learner waits, a checkpoint is written
        first.
    """
    rollouts = Rollouts(recipe, parts.prompts, parts.generator, parts.scorer, progress.step)
    rollouts.admit(progress.versions)
    for version in progress.versions:  # the run may have ended before an older one was sampled
        parts.fixed.begin(version)
    parts.fixed.metrics()  # what that took is of no step
    empty = EmptyRounds()
    with Checkpoints(
        parts.archive,
        parts.learner,
        parts.reference,
        progress.step,
        parts.note,
        recipe.checkpoint.timeout_s,
    ) as checkpoints:
        asked = checkpoints.asking(should_stop, parts.is_warned, lambda: progress.step)
        while progress.step < recipe.num_steps and not asked():
            step, started = progress.step, time.perf_counter()
            with checkpoints.before_errors(step):
                checked = check_canary(recipe, parts, progress)
                if not rollouts.wait(step, asked):
                    break
                taken = rollouts.take(step)
                examples = [example for group in taken.groups for example in parts.select(group)]
            if not parts.fixed.settle(step, asked):
                break
            output = parts.learner.step(step, examples)
            reference = parts.reference.after_step(output.version)
            oldest = output.version.step - recipe.rollouts.max_staleness
            kept = [version for version in progress.versions if version.step >= oldest]
            progress = Progress(step + 1, [*kept, output.version])
            rollouts.admit(progress.versions)
            parts.fixed.begin(output.version)
            record = record_step(step, taken, examples, output.version, reference, recipe.pair_rule)
            parts.archive.write(record)
            empty.add(record)
            metrics = round_metrics(record, output, taken.wait_s) | checked | parts.fixed.metrics()
            times = stage_times(metrics, time.perf_counter() - started)
            parts.sink.write(step, {**metrics, **times})
            if recipe.checkpoint.interval and progress.step % recipe.checkpoint.interval == 0:
                checkpoints.begin(progress.step)
            if empty.are_too_many:
                break
        checkpoints.finish(progress.step)
    if empty.are_too_many:
        raise RoundsLostError(empty.why())
    if progress.step >= recipe.num_steps:
        parts.fixed.finish(progress.versions[-1], should_stop)
    return progress


def check_canary(recipe: Recipe, parts: Parts, progress: Progress) -> dict[str, float]:
    """Compare generators with the learner if it is due; return what to log of it."""
    version = progress.versions[-1]
    if parts.canary is None or not is_due(recipe.rollouts, version):
        return {}
    return {"canary/difference": parts.canary(version)}

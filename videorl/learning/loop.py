"""Training without generators or reward workers: a learner and a stream of examples.

Offline DPO and ReFL run so, in one process or with the learner's ranks on Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from videorl.config import Recipe
from videorl.evaluation.during import DuringTraining, NoEvaluation
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.protocols import Learner, MetricSink, ReferenceUpdater
from videorl.rehearsal import Rehearsal, RehearsingLearner
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoint_writer import Checkpoints
from videorl.run.folder import RunFolder
from videorl.run.sinks import FanOut, RunSink, fan_out, open_sinks
from videorl.step_record import stage_times
from videorl.types import StepRecord, WeightVersion


class Examples(Protocol):
    """What is learned from, by position (>= 0): endless, and equal on every call and resume."""

    @property
    def num_skipped(self) -> int:
        """How many examples could not be used so far; others took their places."""
        ...

    def __getitem__(self, position: int, /) -> Any:
        """Return what the learner's `step` takes."""
        ...


class StandaloneLearner(Learner, RehearsingLearner, Protocol):
    """A learner that nothing else of a run looks after."""

    def in_use(self) -> list[WeightVersion]:
        """Return the published versions that samples may be asked of, oldest first."""
        ...

    def export(self, directory: Path) -> None:
        """Write the policy in the format that diffusers pipelines load."""
        ...

    def close(self) -> None:
        """Return when everything begun is written."""
        ...


@dataclass(frozen=True)
class LearnerParts:
    """Everything the loop needs."""

    examples: Examples
    learner: Learner
    reference: ReferenceUpdater
    sink: MetricSink
    note: CheckpointNote
    during: DuringTraining | NoEvaluation
    is_warned: Callable[[], bool] = lambda: False
    """As in `videorl.loop.Parts`."""


@dataclass(frozen=True)
class Around:
    """What a learner that is alone gets from where it runs."""

    check: Callable[[WeightVersion], None] = lambda version: None
    """Called with the version that the learner starts from; may refuse to go on."""
    devices: Sequence[str] | None = None
    """What it learns on; None = what this machine has."""
    opened: FanOut | None = None
    """The sinks of the run, left open; None = they are opened and closed."""
    also: Sequence[RunSink] = ()
    """Get the metrics too."""
    is_warned: Callable[[], bool] = lambda: False
    """As in `videorl.loop.Parts`."""
    during: Callable[[int], DuringTraining | NoEvaluation] = lambda step: NoEvaluation()
    """Takes the step that the run goes on from; returns what evaluates it in between."""
    watched: Callable[[MetricSink], MetricSink] = lambda sink: sink
    """Returns a sink that adds what is only known there to each step."""


class NoArchive:
    """Keeps nothing: no candidate is made that others would learn from."""

    def write(self, record: StepRecord) -> None:
        """Do nothing."""

    def flush(self) -> None:
        """Do nothing."""


def train_learner(
    recipe: Recipe, parts: LearnerParts, step: int, should_stop: Callable[[], bool]
) -> int:
    """Run optimizer steps until `recipe.num_steps`, or `should_stop` between two; return the step.

    Step s learns from the examples at positions s * `prompts.per_round` and following.
    """
    size = recipe.prompts.per_round
    with Checkpoints(
        NoArchive(),
        parts.learner,
        parts.reference,
        step,
        parts.note,
        recipe.checkpoint.timeout_s,
        parts.during.worth_keeping,
    ) as checkpoints:
        asked = checkpoints.asking(should_stop, parts.is_warned, lambda: step)
        while step < recipe.num_steps and not asked():
            with checkpoints.before_errors(step):
                if not parts.during.settle(step, asked):
                    break
            started, skipped_before = time.perf_counter(), parts.examples.num_skipped
            examples = [parts.examples[step * size + index] for index in range(size)]
            output = parts.learner.step(step, examples)
            parts.during.begin(output.version)
            reference = parts.reference.after_step(output.version)
            metrics = {
                **output.metrics,
                "policy/version_step": float(output.version.step),
                "reference/version_step": float(reference.step),
                "examples/skipped": float(parts.examples.num_skipped - skipped_before),
            }
            metrics |= parts.during.metrics(step, metrics)
            times = stage_times(metrics, time.perf_counter() - started)
            parts.sink.write(step, {**metrics, **times})
            step += 1
            interval = recipe.checkpoint.interval
            if (interval and step % interval == 0) or parts.during.is_due(step):
                checkpoints.begin(step)
        checkpoints.finish(step)
    return step


def run_learner(
    recipe: Recipe,
    folder: RunFolder,
    learner: StandaloneLearner,
    examples: Examples,
    should_stop: Callable[[], bool],
    around: Around | None = None,
) -> bool:
    """Start a learner, train it, or go on, and close it; return whether it reached its last step.

    The aligned policy is exported to the run folder then.

    Args:
        recipe: The run.
        folder: Its folder.
        learner: Not started yet.
        examples: What it learns from.
        should_stop: Asked between steps.
        around: What is particular to where it runs; None = nothing.
    """
    around = around or Around()
    with open_sinks(recipe, folder, around.opened) as sinks, closing(learner):
        version, state = learner.start()
        note = CheckpointNote(folder.root, recipe.checkpoint)
        note.restored(state)
        around.check(version)
        curriculum = CurriculumReference(recipe.reference_interval, version)
        if state is not None:
            curriculum.restore(state["reference"])
        reference = LocalReferenceUpdater(learner, curriculum)
        every = fan_out([sinks, *around.also])
        every.truncate(version.step)
        rehearsal = Rehearsal(recipe, folder, around.devices)
        rehearsal.learner_alone(learner, examples, version.step)
        with closing(around.during(version.step)) as during:
            for each in learner.in_use():  # an earlier one may not be evaluated yet
                during.begin(each)
            during.metrics()  # what that took is of no step
            sink = around.watched(every)
            parts = LearnerParts(examples, learner, reference, sink, note, during, around.is_warned)
            if train_learner(recipe, parts, version.step, should_stop) < recipe.num_steps:
                return False
        learner.export(folder.export)
    return True

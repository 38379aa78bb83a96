"""Held-out prompts while a run learns: every so many steps, behind what training waits for.

Scores are written as they come, and an interrupted evaluation goes on where it was: its weights are
in the checkpoints until it is done. What it found is logged with the step after its weights', so
that it does not depend on how fast anything ran.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from videorl.config import Recipe
from videorl.errors import PoolFailedError, WorkLostError
from videorl.evaluation import readings
from videorl.evaluation.behind import Behind
from videorl.evaluation.guarding import Guarding
from videorl.evaluation.held_out import (
    held_out_prompts,
    held_out_requests,
    most_in_flight,
    stream,
)
from videorl.evaluation.kept_groups import KeptGroups, path_of, path_of_base
from videorl.evaluation.readings import Reading
from videorl.protocols import Generator, Scorer
from videorl.rollouts import chain
from videorl.run.sinks import read_metrics
from videorl.sampling.parts import InParts
from videorl.types import SampleRequest, ScoredGroup, WeightVersion


class NoEvaluation:
    """What a run without evaluations in between has in the place of `DuringTraining`."""

    def is_due(self, step: int) -> bool:
        """Return False."""
        return False

    def begin(self, version: WeightVersion) -> None:
        """Do nothing."""

    def settle(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Do nothing; return True."""
        return True

    def worth_keeping(self) -> list[int]:
        """Return no step."""
        return []

    def metrics(self, step: int = 0, logged: Mapping[str, float] | None = None) -> dict[str, float]:
        """Return nothing."""
        return {}

    def close(self) -> None:
        """Do nothing."""


@dataclass
class DuringTraining:
    """Samples and scores the same prompts and seeds again and again.

    No error of it ends the run, but for the end of a pool, without which the guard is blind.

    Args:
        recipe: The run.
        root: Its folder.
        generator: Of the run: a local object, or its pool.
        scorer: Likewise.
        is_beside: They are pools, which work while the loop goes on; otherwise `begin` does it all.
        resumed: Step that the run goes on from.
        guarding: Judges what is found.
    """

    recipe: Recipe
    root: Path
    generator: Generator
    scorer: Scorer
    is_beside: bool
    resumed: int
    guarding: Guarding
    behind: Behind = field(
        default_factory=lambda: Behind("evaluation", "time/evaluation_s", "evaluation/lost"),
        init=False,
    )
    _found: dict[int, Reading] = field(default_factory=dict[int, Reading], init=False)
    _failures: dict[int, PoolFailedError] = field(
        default_factory=dict[int, PoolFailedError], init=False
    )
    """Step -> why from there on nothing can be evaluated, if the guard may end the run."""
    _told: int = field(default=0, init=False)
    """Readings of earlier steps are in the metrics."""
    _reached: int = field(default=0, init=False)
    """Readings of earlier steps are all there, or lost."""

    def __post_init__(self) -> None:
        """Read what earlier sessions found."""
        self._found = {reading.step: reading for reading in readings.read_readings(self.root)}
        # The step that the run goes on with logs what was found with the weights before its own.
        self._told = self._reached = max(0, self.resumed - 1)

    def is_due(self, step: int) -> bool:
        """Tell whether the weights of a step are evaluated.

        Not those that no later step could log: the evaluation at the end has the last ones.
        """
        return step % self.recipe.evaluation.interval == 0 and step + 1 < self.recipe.num_steps

    def begin(self, version: WeightVersion) -> None:
        """Evaluate a version if it is due and not there; returns at once on pools."""
        step = version.step
        if not self.is_due(step) or step in self.behind.steps or step in self._found:
            return
        if self.is_beside:
            self.behind.begin(step, partial(self._evaluate, version))
            return
        with self.behind.counted():
            self._evaluate(version)

    def settle(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Return when all that was begun with weights before `step` is there; see `Behind`.

        Raises:
            GuardError: The guard stops the run, or sends it back.
            PoolFailedError: A pool cannot work any more, and the guard is to end runs.
        """
        if not self.behind.settle(step, should_stop):
            return False
        self._reached = max(self._reached, step)
        self.guarding.judge(self.readings())
        if failed := [number for number in self._failures if number < step]:
            raise self._failures[min(failed)]
        return True

    def readings(self) -> list[Reading]:
        """Return what was found up to what `settle` waited for, by step."""
        return [self._found[step] for step in sorted(self._found) if step < self._reached]

    def worth_keeping(self) -> list[int]:
        """Return the steps whose checkpoints stay: the best so far, and those not evaluated yet."""
        known = self.readings()
        best = [readings.best(known).step] if known else []
        newer = [step for step in [*self._found] if step >= self._reached]  # a thread adds to it
        return sorted({*best, *newer, *self.behind.steps, *self.guarding.worth_keeping(known)})

    def metrics(self, step: int = 0, logged: Mapping[str, float] | None = None) -> dict[str, float]:
        """Return the newest reading that was not logged yet, and what the loop spent on it all.

        Args:
            step: That logs it.
            logged: What else it logs, which the guard looks at; None = there is no step.
        """
        if logged is not None:
            self.guarding.saw(step, logged)
        found = self.behind.metrics()
        known = self.readings()
        if known and known[-1].step >= self._told:
            found |= readings.metrics_of(known[0], known[-1])
        self._told = self._reached
        return found

    def close(self) -> None:
        """Give up what is not there; what was scored is kept."""
        self.behind.close()

    def _evaluate(self, version: WeightVersion) -> None:
        """Sample, score and write one reading."""
        recipe = self.recipe
        try:
            prompts = held_out_prompts(recipe, recipe.evaluation.during_prompts)
            requests = held_out_requests(recipe, prompts, recipe.evaluation.during_samples, version)
            path = path_of(self.root / "evaluation", recipe, version)
            kept = KeptGroups(path, shared=path_of_base(recipe, version))
            asked = [replace(request, is_behind=True) for request in requests]
            most = most_in_flight(recipe)
            groups = stream(asked, self._run(), most, lambda: self.behind.is_closed, kept)
            if groups is None or (self.behind.is_closed and len(groups) < len(requests)):
                return  # lost with the pools, which end then: goes on when the run does
            reading = readings.reading_of(version, groups)
            if reading is None:
                raise WorkLostError("every prompt was lost")
            readings.write_reading(self.root, reading)
            self._found[version.step] = reading
        except Exception as error:  # the run is worth more than a look at it
            if not self.behind.is_closed:
                self.behind.lose(1)
                self.behind.log(f"that of step {version.step} is left out", error)
            if isinstance(error, PoolFailedError) and recipe.guard.ends_runs:
                # What learns from such a pool ends by itself; a learner that is alone would go on.
                self._failures[version.step] = type(error)(
                    "held-out prompts cannot be sampled and scored any more, which leaves the "
                    f"guard (guard.action={recipe.guard.action}) blind: {error}. Mend that, and "
                    "start the same command again; guard.action=warn goes on all the same"
                )

    def _run(self) -> Callable[[SampleRequest], Future[ScoredGroup]]:
        generator = InParts(self.generator, self.recipe.candidates_per_request())
        return partial(chain, generator=generator, scorer=self.scorer)


def open_during(
    recipe: Recipe, root: Path, step: int, workers: tuple[Generator, Scorer], *, is_beside: bool
) -> DuringTraining | NoEvaluation:
    """Return what evaluates a run while it learns, cut back to the step that it goes on from.

    Args:
        recipe: The run.
        root: Its folder.
        step: What the checkpoint says; later readings go to `superseded/`.
        workers: Generator and scorer of the run.
        is_beside: As of `DuringTraining`.
    """
    readings.truncate(root, step)
    if not recipe.evaluation.interval_in_use:
        return NoEvaluation()
    file = root / "metrics.jsonl"
    rows = read_metrics(file) if file.exists() else []
    logged = {row["step"]: row for row in rows if row["step"] < step}
    guarding = Guarding(recipe, root, logged)
    return DuringTraining(recipe, root, *workers, is_beside, step, guarding)

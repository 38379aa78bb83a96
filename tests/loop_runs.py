"""A run of the loop in one process whose parts remember what they are given, for tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes import FakeReward
from tests.learners import tiny_learner, tiny_recipe
from tests.tiny_policy import TinyPolicy
from videorl.config import Recipe, RewardConfig
from videorl.data.prompts import PromptStream
from videorl.errors import ArchiveError
from videorl.learning.learner import Learner
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.loop import Parts, Progress, train
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import (
    CandidateGroup,
    PreferencePair,
    SampleRequest,
    ScoredGroup,
    StepRecord,
    WeightVersion,
)

TEXTS = ["red", "a blue ball", "green square", "two dots", "nothing"]
STEPS = 6


@dataclass
class RecordingGenerator:
    """Samples for real, remembers what was asked, and fails where it is told to."""

    inner: LocalGenerator
    errors: Mapping[int, Exception] = field(default_factory=dict[int, Exception])
    """Position in the prompt stream -> error."""
    threads: ThreadPoolExecutor | None = None
    """Where to sample; None = inside `submit`."""
    requests: list[SampleRequest] = field(default_factory=list[SampleRequest])

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        self.requests.append(request)
        if error := self.errors.get(request.prompt.index):
            future: Future[CandidateGroup] = Future()
            future.set_exception(error)
            return future
        if self.threads is not None:
            return self.threads.submit(lambda: self.inner.submit(request).result())
        return self.inner.submit(request)


@dataclass
class MemoryArchive:
    """Keeps what it is given in memory; cannot write the step `fails_at`."""

    fails_at: int = -1
    groups: dict[int, list[ScoredGroup]] = field(default_factory=dict[int, list[ScoredGroup]])
    pairs: dict[int, list[PreferencePair]] = field(default_factory=dict[int, list[PreferencePair]])
    records: dict[int, StepRecord] = field(default_factory=dict[int, StepRecord])
    flushed: int = 0

    def write(self, record: StepRecord) -> None:
        if record.step == self.fails_at:
            raise ArchiveError("no space left on device")
        self.records[record.step] = record
        self.groups[record.step] = list(record.groups)
        self.pairs[record.step] = list(record.pairs)

    def flush(self) -> None:
        self.flushed += 1


@dataclass
class MemorySink:
    """Keeps metrics in memory."""

    steps: list[int] = field(default_factory=list[int])
    metrics: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.steps.append(step)
        self.metrics.append(dict(metrics))


@dataclass
class Run:
    """One process of a run: its parts, and where it stands."""

    recipe: Recipe
    parts: Parts
    progress: Progress
    generator: RecordingGenerator
    archive: MemoryArchive
    sink: MemorySink
    learner: Learner

    def train(
        self, until: int = STEPS, should_stop: Callable[[], bool] = lambda: False
    ) -> Progress:
        self.progress = train(
            self.recipe,
            self.parts,
            self.progress,
            lambda: len(self.sink.steps) >= until or should_stop(),
        )
        return self.progress

    def requests(self) -> dict[int, list[tuple[int, tuple[int, ...], WeightVersion]]]:
        """Round -> (prompt index, seeds, version) of each of its requests, in order."""
        found: dict[int, list[tuple[int, tuple[int, ...], WeightVersion]]] = {}
        for one in self.generator.requests:
            request = (one.prompt.index, one.seeds, one.version)
            found.setdefault(one.round, []).append(request)
        return found


def recipe_with(max_staleness: int, interval: int = 2) -> Recipe:
    recipe = tiny_recipe(max_staleness=max_staleness)
    recipe.num_steps = STEPS
    recipe.prompts.per_round, recipe.prompts.candidates_per_prompt = 2, 3
    recipe.rewards = [RewardConfig(name="fake")]
    recipe.reference.interval = 2
    recipe.checkpoint.interval = interval
    return recipe


def start(folder: Path, recipe: Recipe, *, reward: Any = None, **generator: Any) -> Run:
    """Start a run, or go on with the one in `folder`."""
    learner, _ = tiny_learner(recipe, folder)
    version, state = learner.start()
    curriculum = CurriculumReference(recipe.reference.interval, version)
    if state is not None:
        curriculum.restore(state["reference"])
    recording = RecordingGenerator(LocalGenerator(TinyPolicy(), "", learner.published), **generator)
    archive, sink = MemoryArchive(), MemorySink()
    parts = Parts(
        PromptStream(TEXTS, recipe.seed),
        recording,
        LocalScorer({"fake": reward or FakeReward()}, recipe.rewards, lambda video: {}),
        recipe.selection,
        learner,
        LocalReferenceUpdater(learner, curriculum),
        archive,
        sink,
    )
    progress = Progress(version.step, learner.in_use())
    return Run(recipe, parts, progress, recording, archive, sink, learner)

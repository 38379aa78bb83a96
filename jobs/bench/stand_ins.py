"""A run without models: parts that take time and memory, to measure everything around them.

Real are the loop, the pools with their actors, the scorer, the encoder's actor, the weight store,
the archive (tables only), and every object in the object store. Generators, the reward model inside
a real reward worker, and the learner sleep instead of computing. The learner opens the latents of
its pairs and publishes weights, but trains and saves nothing.

Nothing here imports torch at the top: hundreds of generators must fit into one machine's memory.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray
from ray.actor import ActorHandle

from actors.naming import named, shown_by_name
from actors.placement import beside_driver, start_actor
from actors.processes.worker_process import own_node
from actors.store.handles import to_learn_from
from actors.store.media import fetch
from videorl.futures import completed
from videorl.types import (
    LearnerOutput,
    SampleRequest,
    Score,
    TrainingExample,
    Video,
    WeightVersion,
)

LATENT_BYTES = 4 * 2**20
"""Size of one 81×480×832 sample of Wan in bf16."""
_WEIGHT_BYTES = 2**20
_FRAME_SHAPE = (9, 64, 64, 3)
"""[F, H, W, 3]: just above 100 KiB, below which Ray sends objects to the driver itself."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long each stage takes, in seconds."""

    generate_s: float
    """One request, all candidates of a prompt; a mean, see `spread`."""
    score_s: float = 0.0
    """One scored group."""
    learn_s: float = 0.0
    """One optimizer step."""
    spread: float = 0.0
    """Requests take (1 ± spread) × `generate_s`, spread evenly and given by their seeds."""
    stagger: int = 0
    """So many prompts at the start take only a part of their time, the first the least. Without it,
    workers that begin at the same time would end at the same time for the whole run."""
    computes: bool = False
    """Every stage computes instead of sleeping, and all share one core."""
    candidates: int = 0
    """Of a whole request: one for fewer takes as much less; 0 = any number takes as long."""

    def generation_s(self, request: SampleRequest) -> float:
        """Return how many seconds a request takes."""
        share = request.seeds[0] % 10_007 / 10_006
        seconds = self.generate_s * (1 + self.spread * (2 * share - 1))
        seconds *= len(request.seeds) / (self.candidates or len(request.seeds))
        place = request.prompt.index + 1
        return seconds * place / self.stagger if place < self.stagger else seconds

    def spend(self, seconds: float) -> None:
        """Sleep, or keep the shared core busy for as long (processor time of this thread)."""
        if not self.computes:
            time.sleep(seconds)
            return
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        start = time.thread_time()
        while time.thread_time() - start < seconds:
            pass


@dataclass(frozen=True, slots=True)
class Work:
    """How large the media are, and where they are made."""

    latent_bytes: int = LATENT_BYTES
    """Of a candidate."""
    frame_shape: tuple[int, int, int, int] = _FRAME_SHAPE
    """[F, H, W, 3] of a video."""
    options: Mapping[str, Any] = field(default_factory=lambda: {"num_cpus": 0})
    """Ray options of generators, encoder and reward workers."""
    learner_options: Mapping[str, Any] | None = None
    """Those of the learner; None = beside the driver."""
    num_shared: int = 0
    """Processes that the generators share; 0 = each has its own."""


@dataclass(frozen=True, slots=True)
class Slept:
    """Stands for `actors.generator.Sampled`, without its imports."""

    version: WeightVersion
    timings: Mapping[str, float]
    unusable: Mapping[int, str] = field(default_factory=dict[int, str])
    is_uncompiled: bool = False


@shown_by_name
class SleepingGenerator:
    """Answers as a `GeneratorWorker` does; several requests at once, if several are sent.

    Args:
        pace: How long a request takes.
        weight_store: Where it pulls weights, as real generators do. It cannot check them.
        work: What it makes.
    """

    def __init__(self, pace: Pace, weight_store: ActorHandle, work: Work) -> None:
        self._pace = pace
        self._work = work
        self._weight_store: Any = weight_store
        self._version: WeightVersion | None = None
        self._latents = np.zeros(work.latent_bytes // 2, np.float16)
        self._threads = ThreadPoolExecutor(1)

    async def ready(self) -> str:
        """Return the id of this node."""
        return own_node()

    async def generate(self, request: SampleRequest, *embeds: Any) -> tuple[Any, ...]:
        """Return `Slept`, then the latents of every seed, then the videos of every seed."""
        if request.version != self._version:
            (ref,) = await self._weight_store.get.remote(request.version)
            await ref
            self._version = request.version
        seconds = self._pace.generation_s(request)
        if self._pace.computes:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, self._pace.spend, seconds)
        else:
            await asyncio.sleep(seconds)
        latents = [self._latents] * len(request.seeds)
        videos = [_video(seed, self._work.frame_shape) for seed in request.seeds]
        return Slept(request.version, {"sample_s": seconds}), *latents, *videos


def _video(seed: int, shape_FHW3: tuple[int, int, int, int]) -> Video:
    """Return noise that differs from seed to seed, so that no two scores tie."""
    num_frames, height, width, _ = shape_FHW3
    pixels = np.random.default_rng(seed).bytes(height * width * 3)
    frame = np.frombuffer(pixels, np.uint8).reshape(1, height, width, 3)
    return Video(np.repeat(frame, num_frames, axis=0), fps=8.0)


def generator_processes(
    pace: Pace, weight_store: ActorHandle, run: str = "", work: Work | None = None
) -> Callable[[int], ActorHandle]:
    """Return a function for a pool: every generator is a process, as real ones are."""
    arguments = (pace, weight_store, work := work or Work())
    return lambda number: start_actor(
        SleepingGenerator, named(work.options, run, f"generator-{number}"), *arguments
    )


def shared_processes(
    pace: Pace, weight_store: ActorHandle, num_processes: int, work: Work | None = None
) -> Callable[[int], ActorHandle]:
    """Return a function for a pool: generators take turns in a few processes.

    To the pool each is a worker that takes one request at a time and gives real answers. But
    workers of one process have equal handles, so that releasing one ends them all: only pools of a
    fixed size may use it.
    """
    work = work or Work()
    hosts = [
        start_actor(SleepingGenerator, work.options, pace, weight_store, work)
        for _ in range(num_processes)
    ]
    return lambda number: hosts[number % num_processes]


@dataclass
class SleepingReward:
    """A `RewardModel` whose score is the mean of a video's first frame."""

    pace: Pace
    dimensions: tuple[str, ...] = ("level",)

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Score one group."""
        self.pace.spend(self.pace.score_s)
        levels = [float(video.frames[0].mean()) for video in videos]
        return [Score({"level": level}, level) for level in levels]


class StandInText:
    """The part of a `Policy` that an encoder uses."""

    def encode(self, prompts: Sequence[str]) -> list[Any]:
        """Return an empty embedding per prompt."""
        import torch

        from videorl.embedding import plain

        return [plain(torch.zeros(8, 64)) for _ in prompts]


def version_of(step: int) -> WeightVersion:
    """Return the version that a `SleepingRank` publishes."""
    return WeightVersion(step, hashlib.sha256(str(step).encode()).hexdigest())


class SleepingRank:
    """The learner's process; it keeps nothing, so it may die and be started again."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace

    def publish(self, weight_store: ActorHandle, step: int) -> WeightVersion:
        """Put weights into the store."""
        version = version_of(step)
        ray.get(weight_store.put.remote(version, np.zeros(_WEIGHT_BYTES, np.uint8)))
        return version

    def step(
        self, weight_store: ActorHandle, step: int, examples: Sequence[TrainingExample]
    ) -> LearnerOutput:
        """Open the latents of all examples, take the time of a step, publish the next version."""
        candidates = [scored.candidate for each in examples for scored in each.candidates]
        latents = fetch([candidate.latents for candidate in candidates])
        num_bytes = sum(array.nbytes for array in latents)
        self._pace.spend(self._pace.learn_s)
        version = self.publish(weight_store, step + 1)
        return LearnerOutput(version, {"learner/bytes": float(num_bytes)})


@dataclass
class SleepingLearner:
    """Implements `videorl.protocols.Learner` on a `SleepingRank`."""

    pace: Pace
    weight_store: ActorHandle
    where: Mapping[str, Any] | None = None
    """Ray options of the process; None = beside the driver."""
    rank: Any = field(init=False)

    def __post_init__(self) -> None:
        """Start the process."""
        options = {**(self.where or beside_driver()), "max_restarts": -1, "max_task_retries": -1}
        self.rank = start_actor(SleepingRank, options, self.pace)

    def start(self, step: int = 0) -> tuple[WeightVersion, None]:
        """Publish the version of a step."""
        return ray.get(self.rank.publish.remote(self.weight_store, step)), None

    def step(self, step: int, examples: Sequence[TrainingExample]) -> LearnerOutput:
        """Take a step in the process."""
        lean = tuple(map(to_learn_from, examples))
        return ray.get(self.rank.step.remote(self.weight_store, step, lean))

    def update_reference(self, version: WeightVersion) -> None:
        """Do nothing."""

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Write nothing."""
        return completed(lambda: None)

    def close(self) -> None:
        """End the process."""
        ray.kill(self.rank, no_restart=True)

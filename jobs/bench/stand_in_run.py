"""The main loop on stand-ins, assembled as `actors.assembly` assembles it on models."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from actors.encoder import RayEncoder
from actors.generator import RayGenerator
from actors.naming import run_name
from actors.pool.limits import generator_limits, reward_limits
from actors.pool.pool import ElasticPool
from actors.reference import RayReferenceUpdater
from actors.reward import RayScorer
from actors.store.archive import RayArchive
from actors.store.kept_latents import Keepers, KeepingScorer
from actors.store.video_files import EncodingScorer
from actors.store.weights import create_weight_store
from jobs.bench.stand_ins import (
    Pace,
    SleepingLearner,
    SleepingReward,
    StandInText,
    Work,
    generator_processes,
    shared_processes,
)
from videorl.config import Recipe
from videorl.data.prompts import PromptStream, load_prompts
from videorl.loop import Parts, Progress
from videorl.protocols import MetricSink, RewardModel
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder


@dataclass(frozen=True)
class StandInRun:
    """The parts of a run while it works."""

    parts: Parts
    progress: Progress
    generator: RayGenerator
    scorer: RayScorer
    learner: SleepingLearner
    pools: dict[str, ElasticPool]
    """`generator` and `reward`."""


def stand_in_recipe(run_dir: str, **changes: object) -> Recipe:
    """Return a recipe for stand-ins: one pair per prompt, one worker each, tables only.

    Args:
        run_dir: The run folder.
        changes: Settings by key, in which `__` stands for a dot.
    """
    settings: dict[str, object] = {
        "run_dir": run_dir,
        "prompts__candidates_per_prompt": 2,
        "generators__min_workers": 1,
        "generators__max_workers": 1,
        "rewards__0__label": "reward",
        "archive__videos": "none",
        "checkpoint__interval": 0,
        "reference__interval": 10,
        "evaluation__source": "",
        **changes,
    }
    overrides = [f"{name.replace('__', '.')}={value}" for name, value in settings.items()]
    return load_recipe("moving_shapes", overrides)


@contextmanager
def stand_in_run(
    recipe: Recipe,
    folder: RunFolder,
    sink: MetricSink,
    pace: Pace,
    reward: RewardModel | None = None,
    work: Work | None = None,
    step: int = 0,
) -> Iterator[StandInRun]:
    """Start every part; they end with the block.

    Args:
        recipe: Decides sizes of rounds and pools, staleness, retries and timeouts.
        folder: Its archive is written.
        sink: Gets the metrics of every step.
        pace: How long each stage takes.
        reward: Scores; None = a `SleepingReward`.
        work: How large media are and where they are made; None = as `Work()`.
        step: Where the run goes on; its archive is cut back to it. Only the version of this step is
            published again, so that `rollouts.max_staleness` must be 0 where it is not the first.
    """
    with ExitStack() as stack:
        run = run_name(recipe)
        store = create_weight_store(recipe.rollouts.max_staleness + 1, run)
        work = work or Work()
        learner = SleepingLearner(pace, store, work.learner_options)
        stack.callback(learner.close)
        version, _ = learner.start(step)
        encoder = RayEncoder(_text, dict(work.options), run=run)
        stack.callback(encoder.close)
        create = (
            shared_processes(pace, store, work.num_shared, work)
            if work.num_shared
            else generator_processes(pace, store, run, work)
        )
        generator = RayGenerator(create, encoder, "", generator_limits(recipe.generators))
        stack.callback(generator.close)
        scorer = _scorer(recipe, reward or SleepingReward(pace), work)
        stack.callback(scorer.close)
        archive = RayArchive(folder.archive, recipe.archive, run)
        stack.callback(archive.close)
        archive.truncate(step)
        for pool in (generator.pool, *scorer.pools):
            pool.wait_until_serving(600.0)
        reference = RayReferenceUpdater(learner, recipe.reference.interval, version, run)
        stack.callback(reference.close)
        prompts = PromptStream(load_prompts(recipe.prompts.source, "train")[:64], recipe.seed)
        rule = recipe.example_source()
        encoding = EncodingScorer(scorer, scorer.files, rule, recipe.archive)
        keepers = Keepers(recipe.cluster.keep_latents_on, run)
        stack.callback(keepers.close)
        keeping = KeepingScorer(encoding, rule, keepers)
        parts = Parts(prompts, generator, keeping, rule, learner, reference, archive, sink)
        pools = {"generator": generator.pool, "reward": scorer.pools[0]}
        yield StandInRun(parts, Progress(step, [version]), generator, scorer, learner, pools)


def _text(device: Any) -> Any:
    return StandInText()


def _scorer(recipe: Recipe, reward: RewardModel, work: Work) -> RayScorer:
    limits = [reward_limits(reward) for reward in recipe.rewards]
    options = [dict(work.options)] * len(limits)
    run = run_name(recipe)
    return RayScorer(recipe.rewards, options, limits, None, lambda _: reward, run)


def wait_for_workers(pool: ElasticPool, count: int, timeout_s: float) -> None:
    """Wait until at least `count` workers are ready.

    Raises:
        TimeoutError: They are not after `timeout_s` seconds.
    """
    end = time.monotonic() + timeout_s
    while (ready := pool.stats().workers) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{ready} of {count} workers were ready after {timeout_s:.0f} s")
        time.sleep(0.1)

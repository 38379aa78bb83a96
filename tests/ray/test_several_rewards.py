"""Several reward models in one run: their own resources, environments, weights and losses."""

from __future__ import annotations

import math
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray

from actors.assembly import assemble
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits
from actors.reward import RayScorer
from tests.fakes import FakeReward
from tests.learners import tiny_learner, tiny_recipe
from tests.ray.conftest import ROOT
from tests.tiny_policy import TinyPolicy
from videorl.config import RewardConfig
from videorl.data.archive import read_table
from videorl.data.prompts import PromptStream
from videorl.errors import PromptError
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.loop import Parts, Progress, train
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.sampling.local import LocalGenerator
from videorl.types import Score, StepRecord, Video

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

FIXTURES = ROOT / "tests/fixtures"
VARIABLE = "VIDEORL_TEST_MODEL"
LIMITS = Limits(
    min_workers=1, max_workers=1, max_retries=1, request_timeout_s=60.0, idle_release_s=60.0
)


@dataclass
class Memory:
    """Keeps metrics."""

    rows: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.rows.append(dict(metrics))


class NoArchive:
    """Keeps nothing."""

    def write(self, record: StepRecord) -> None:
        pass

    def flush(self) -> None:
        pass


def three_models(tmp_path: Path) -> list[RewardConfig]:
    """Moving Shapes' own reward, and tiny checkpoints in the published layouts."""
    with tarfile.open(FIXTURES / "vision_reward.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return [
        RewardConfig(name="moving_shapes", num_cpus=0.25),
        RewardConfig(
            name="video_reward",
            path=str(FIXTURES / "video_reward"),
            options={"base": str(FIXTURES / "video_reward/base")},
            weight=0.5,
            dimension_weights={"text_alignment": 2.0},
            num_cpus=0.5,
            runtime_env={"env_vars": {VARIABLE: "video"}},
        ),
        RewardConfig(
            name="vision_reward",
            label="vision",
            path=str(tmp_path / "vision_reward"),
            weight=0.25,
            num_cpus=0.75,
            runtime_env={"env_vars": {VARIABLE: "vision"}},
        ),
    ]


def environment_and_cpus(pool: ElasticPool) -> tuple[str | None, float]:
    """Return what the process of a pool's only worker was given."""

    def given(worker: Any) -> tuple[str | None, float]:
        cpus = ray.get_runtime_context().get_assigned_resources()["CPU"]
        return os.environ.get(VARIABLE), cpus

    return pool.submit(lambda worker: [worker.__ray_call__.remote(given)]).result(180).value


@pytest.mark.slow
def test_the_main_job_with_three_reward_models(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    settings = {
        "policy.path": tiny_checkpoints["wan"],
        "run_dir": tmp_path / "run",
        "num_steps": 2,
        "policy.lora.rank": 4,
        "sampling.num_inference_steps": 2,
        "prompts.per_round": 2,
        "prompts.candidates_per_prompt": 2,
        "generators.min_workers": 1,
        "generators.max_workers": 1,
        "archive.videos": "none",
        "evaluation.source": "",
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    recipe = load_recipe("moving_shapes_rwr", overrides)  # learns from candidates, not from pairs
    recipe.rewards = three_models(tmp_path)
    sink = Memory()
    with open_run(recipe) as folder, assemble(recipe, folder, sink) as assembly:
        train(recipe, assembly.parts, assembly.progress, lambda: False)
        started = [environment_and_cpus(pool) for pool in assembly.scorer.pools]
        replaced = [pool.stats().replaced for pool in assembly.scorer.pools]
    assert started == [(None, 0.25), ("video", 0.5), ("vision", 0.75)]
    assert replaced == [0, 0, 0]
    assert [row["candidates/scored"] for row in sink.rows] == [4.0, 4.0]
    assert sink.rows[0]["learn/loss"] > 0
    published = read_table(tmp_path / "run/archive", "steps")["published_digest"].to_pylist()
    assert len(set(published)) == 2, "every step changed the weights"
    for row in sink.rows:
        means = {name: value for name, value in row.items() if name.startswith("reward/")}
        assert len(means) == 3 + 3 + 9 + 1
        assert all(math.isfinite(value) for value in means.values())
        shapes, vision = (
            sum(value for name, value in means.items() if name.startswith(f"reward/{model}."))
            for model in ("moving_shapes", "vision")
        )
        text = means["reward/video_reward.text_alignment"]
        assert means["reward/total"] == pytest.approx(shapes + 0.5 * 2.0 * text + 0.25 * vision)
    scores = read_table(tmp_path / "run/archive", "scores").to_pylist()
    archived = {row["dimension"] for row in scores if row["kind"] == "reward"}
    logged = {name.removeprefix("reward/") for name in sink.rows[0] if name.startswith("reward/")}
    assert archived == logged - {"total"}


@dataclass
class Moody(FakeReward):
    """Answers NaN for about half of the videos, and refuses one prompt."""

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        if "nothing" in prompts:
            raise PromptError("nothing can be seen")
        return [
            Score({**one.dimensions, "contrast": math.nan}, one.total)
            if self._is_odd(video)
            else one
            for one, video in zip(super().score(videos, prompts), videos, strict=True)
        ]

    def _is_odd(self, video: Video) -> bool:
        return bool(video.frames.sum() % 6)  # every grey pixel is there three times


def test_nan_and_refused_prompts_of_one_model_are_counted_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe()
    recipe.prompts.per_round, recipe.prompts.candidates_per_prompt = 3, 4
    recipe.rewards = [RewardConfig(name="calm"), RewardConfig(name="moody", weight=0.5)]
    models = {"calm": FakeReward(), "moody": Moody()}
    scorer = RayScorer(
        recipe.rewards,
        [{"num_cpus": 0.5}] * 2,
        [LIMITS] * 2,
        lambda video: {},
        lambda config: models[config.key],
    )
    learner, _ = tiny_learner(recipe, tmp_path)
    version, _ = learner.start()
    sink = Memory()
    parts = Parts(
        PromptStream(["red", "a blue ball", "nothing"], recipe.seed),
        LocalGenerator(TinyPolicy(), "", learner.published),
        scorer,
        recipe.selection,
        learner,
        LocalReferenceUpdater(learner, CurriculumReference(2, version)),
        NoArchive(),
        sink,
    )
    reached = train(recipe, parts, Progress(0, [version]), lambda: False)
    lost_workers = [(pool.stats().replaced, pool.stats().retried) for pool in scorer.pools]
    scorer.close()
    assert reached.step == recipe.num_steps
    assert lost_workers == [(0, 0), (0, 0)]
    for row in sink.rows:
        not_finite = row.get("candidates/dropped_score_not_finite", 0.0)
        assert row["candidates/dropped_prompt_unscorable"] == 4.0
        assert row.get("candidates/scored", 0.0) + not_finite == 8.0
        assert all(math.isfinite(value) for value in row.values())
    dropped = [row.get("candidates/dropped_score_not_finite", 0.0) for row in sink.rows]
    assert 0 < sum(dropped) < 8 * len(dropped)
    assert sum(row["learn/examples"] for row in sink.rows if "learn/examples" in row) > 0

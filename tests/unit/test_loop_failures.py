"""What the loop does when groups, scores, generators, archive or checkpoints fail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeReward
from tests.loop_runs import STEPS, TEXTS, recipe_with, start
from videorl.errors import (
    ArchiveError,
    CanaryError,
    PoolFailedError,
    PromptError,
    RoundsLostError,
    WorkLostError,
)
from videorl.learning.learner import Learner
from videorl.types import Score, Video, WeightVersion


def test_lost_groups_and_rejected_prompts_are_counted_and_the_run_goes_on(tmp_path: Path) -> None:
    errors = {0: WorkLostError("died"), 3: PromptError("too long"), 4: WorkLostError("x")}
    errors[5] = WorkLostError("every group of round 2")
    run = start(tmp_path, recipe_with(0), errors=errors)
    assert run.train().step == STEPS
    dropped = [
        {name: value for name, value in metrics.items() if "dropped" in name}
        for metrics in run.sink.metrics
    ]
    assert dropped[:4] == [
        {"groups/dropped_group_lost": 1.0},
        {"groups/dropped_prompt_rejected": 1.0},
        {"groups/dropped_group_lost": 2.0},
        {},
    ]
    assert [metrics["learn/examples"] for metrics in run.sink.metrics[:4]] == [1.0, 1.0, 0.0, 2.0]
    assert "learn/loss" not in run.sink.metrics[2]
    found = [one for record in run.archive.records.values() for one in record.outcomes]
    assert [one.prompt.index for one in found] == list(range(2 * STEPS)), "each prompt once"
    lost, trained = "group_lost", "trained"
    outcomes = [lost, trained, trained, "prompt_rejected", lost, lost, trained]
    assert [one.outcome for one in found[:7]] == outcomes
    assert [one.error for one in found[3:6]] == ["too long", "x", "every group of round 2"]


def test_a_run_that_loses_every_round_stops_with_what_it_earned(tmp_path: Path) -> None:
    errors = {index: WorkLostError("out of memory") for index in range(4, 20)}
    run = start(tmp_path, recipe_with(0, interval=0), errors=errors)
    wanted = (
        r"steps 2 to 4: 3 rounds in a row gave nothing to compare \(group_lost: 6\); the last "
        r"error was: out of memory\. The run stopped at step 5 with everything kept"
    )
    with pytest.raises(RoundsLostError, match=wanted):
        run.train()
    assert run.sink.steps == list(run.archive.records) == [0, 1, 2, 3, 4]
    again = start(tmp_path, recipe_with(0, interval=0))
    assert again.progress.step == 5
    assert again.train().step == STEPS


def test_a_canary_that_no_generator_passes_stops_the_run_with_what_it_earned(
    tmp_path: Path,
) -> None:
    chosen = recipe_with(0, interval=0)
    chosen.rollouts.canary_interval = 2

    def canary(version: WeightVersion) -> float:
        if version.step == 4:
            raise CanaryError("they differ")
        return 0.25

    run = start(tmp_path, chosen)
    run.parts = replace(run.parts, canary=canary)
    with pytest.raises(CanaryError, match="they differ"):
        run.train()
    checked = [row.get("canary/difference") for row in run.sink.metrics]
    assert checked == [0.25, None, 0.25, None]
    assert start(tmp_path, chosen).progress.step == 4


def test_scores_that_are_never_finite_stop_the_run_too(tmp_path: Path) -> None:
    reward = FakeReward(replace={"brightness": float("nan")})
    with pytest.raises(RoundsLostError, match=r"\(score_not_finite: 18, too_few_candidates: 6\)"):
        start(tmp_path, recipe_with(0), reward=reward).train()


class PickyReward(FakeReward):
    """Cannot score the first video of a group, and finds all videos of some prompts equal."""

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        scores = super().score(videos, prompts)
        if prompts[0] == TEXTS[0]:
            return [Score(scores[0].dimensions, 1.0)] * len(videos)
        return [replace(scores[0], total=float("nan")), *scores[1:]]


def test_bad_scores_are_counted_and_never_reach_a_pair(tmp_path: Path) -> None:
    run = start(tmp_path, recipe_with(0), reward=PickyReward())
    run.train()
    for step, metrics in enumerate(run.sink.metrics):
        texts = [group.prompt.text for group in run.archive.groups[step]]
        expected = {"candidates/dropped_score_not_finite": 2.0 - texts.count(TEXTS[0])}
        if TEXTS[0] in texts:
            expected["groups/no_pair_all_scores_equal"] = 1.0
        counted = {name: one for name, one in metrics.items() if "drop" in name or "no_p" in name}
        assert counted == expected
        for pair in run.archive.pairs[step]:
            assert pair.margin > 0
            assert 0 not in (pair.chosen.candidate.index, pair.rejected.candidate.index)


@pytest.mark.parametrize("error", [KeyError("a bug"), PoolFailedError("no worker can start")])
def test_a_bug_or_a_pool_that_cannot_start_stops_the_run(error: Exception, tmp_path: Path) -> None:
    expected = start(tmp_path / "whole", recipe_with(0, interval=0)).train()
    run = start(tmp_path / "cut", recipe_with(0, interval=0), errors={5: error})
    with pytest.raises(type(error)):
        run.train()
    assert run.sink.steps == [0, 1]
    again = start(tmp_path / "cut", recipe_with(0, interval=0))
    assert again.progress.step == 2, "what was earned was saved, without an interval"
    assert again.train() == expected


def test_an_archive_that_cannot_be_written_stops_the_run_which_can_go_on_later(
    tmp_path: Path,
) -> None:
    expected = start(tmp_path / "whole", recipe_with(1)).train()
    run = start(tmp_path / "cut", recipe_with(1))
    run.archive.fails_at = 3
    with pytest.raises(ArchiveError, match="no space left"):
        run.train()
    assert run.sink.steps == [0, 1, 2]
    again = start(tmp_path / "cut", recipe_with(1))
    assert again.progress.step == 2, "from the newest checkpoint"
    assert again.train() == expected


@dataclass
class FullDisk:
    """A learner whose checkpoints of some steps cannot be written."""

    inner: Learner
    steps: tuple[int, ...]

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        if loop_state["step"] not in self.steps:
            return self.inner.save(loop_state)
        failed: Future[None] = Future()
        failed.set_exception(OSError(28, "No space left on device"))
        return failed

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return getattr(self.inner, name)


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = start(tmp_path, recipe_with(0))
    run.parts = replace(run.parts, learner=FullDisk(run.learner, steps=(4, 6)))
    with caplog.at_level(logging.ERROR):
        assert run.train().step == STEPS
    assert "step 4 could not be written, the last one is from step 2" in caplog.text
    assert run.archive.flushed == 4, "tried again at the end of the run"
    assert start(tmp_path, recipe_with(0)).progress.step == 2

"""The whole loop in one process: real learner, sampler and scoring, on a tiny policy."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import FakeReward
from tests.loop_runs import STEPS, recipe_with, start
from tests.tiny_policy import TinyPolicy
from videorl.evaluation.fixed_prompts import FixedPrompts
from videorl.evaluation.strip_files import FixedPrompt
from videorl.sampling.local import LocalGenerator
from videorl.types import CandidateGroup, Prompt, SampleRequest, WeightVersion


@pytest.mark.parametrize("staleness", [0, 1, 2])
def test_every_round_is_sampled_with_exactly_the_version_that_staleness_says(
    staleness: int, tmp_path: Path
) -> None:
    run = start(tmp_path, recipe_with(staleness))
    assert run.train().step == STEPS
    requests = run.requests()
    assert list(requests) == list(range(STEPS)), "every round once, in order"
    for number, asked in requests.items():
        assert [index for index, _, _ in asked] == [2 * number, 2 * number + 1]
        assert {version.step for _, _, version in asked} == {max(0, number - staleness)}
    lags = [metrics["staleness/steps"] for metrics in run.sink.metrics]
    assert lags == [min(number, staleness) for number in range(STEPS)]
    assert len(
        {seed for asked in requests.values() for _, seeds, _ in asked for seed in seeds}
    ) == (STEPS * 2 * 3)
    for groups in run.archive.groups.values():
        for group in groups:
            for one in group.candidates:
                assert one.candidate.version.step == max(0, one.candidate.round - staleness)


@pytest.mark.parametrize("staleness", [0, 2])
def test_sampling_in_another_thread_changes_nothing(staleness: int, tmp_path: Path) -> None:
    inside = start(tmp_path / "inside", recipe_with(staleness))
    expected = inside.train()
    with ThreadPoolExecutor(1) as threads:
        beside = start(tmp_path / "beside", recipe_with(staleness), threads=threads)
        assert beside.train() == expected
    assert beside.requests() == inside.requests()


def test_what_is_logged_of_a_step(tmp_path: Path) -> None:
    run = start(tmp_path, recipe_with(0))
    run.train()
    first, last = run.sink.metrics[0], run.sink.metrics[-1]
    groups, pairs = run.archive.groups[0], run.archive.pairs[0]
    totals = [one.score.total for group in groups for one in group.candidates]
    assert first["reward/total"] == pytest.approx(sum(totals) / 6)
    assert first["reward/total"] == pytest.approx(
        first["reward/brightness"] + first["reward/contrast"]
    )
    assert first["pairs/margin"] == pytest.approx(sum(pair.margin for pair in pairs) / len(pairs))
    assert first["candidates/scored"] == 6.0
    assert (first["policy/version_step"], first["reference/version_step"]) == (1.0, 0.0)
    assert (last["policy/version_step"], last["reference/version_step"]) == (6.0, 6.0)
    assert first["time/step_s"] >= first["time/learn_s"] > 0
    assert not [name for name in first if "dropped" in name or "no_pair" in name]


def test_what_comes_before_the_first_step_is_no_time_of_it(tmp_path: Path) -> None:
    run = start(tmp_path, recipe_with(0))

    class Slow(LocalGenerator):
        def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
            time.sleep(0.5)
            return super().submit(request)

    slow = Slow(TinyPolicy(), "", run.learner.published)
    prompts = [FixedPrompt(Prompt(0, "red"), 0)]
    fixed = FixedPrompts(tmp_path, prompts, 100, slow, run.parts.scorer, lambda files: None)
    run.parts = replace(run.parts, fixed=fixed)
    run.train(until=1)
    fixed.close()
    assert run.sink.metrics[0]["time/other_s"] >= 0
    assert "time/fixed_prompts_s" not in run.sink.metrics[0]


def test_steps_without_pairs_still_publish(tmp_path: Path) -> None:
    constant = FakeReward(replace={"brightness": 0.5, "contrast": 0.5})
    run = start(tmp_path, recipe_with(0), reward=constant)
    digest = run.progress.versions[0].digest
    assert run.train().versions == [WeightVersion(STEPS, digest)]
    assert [metrics["groups/no_pair_all_scores_equal"] for metrics in run.sink.metrics] == [2.0] * 6


@pytest.mark.parametrize("staleness", [0, 2])
@pytest.mark.parametrize("stop_at", [1, 2, 3, 5])
def test_a_stopped_run_goes_on_as_if_nothing_happened(
    stop_at: int, staleness: int, tmp_path: Path
) -> None:
    whole = start(tmp_path / "whole", recipe_with(staleness))
    expected = whole.train()
    first = start(tmp_path / "cut", recipe_with(staleness))
    assert first.train(until=stop_at).step == stop_at
    second = start(tmp_path / "cut", recipe_with(staleness))
    assert second.progress == first.progress
    assert second.train() == expected
    assert first.sink.steps + second.sink.steps == list(range(STEPS))
    rounds = list(whole.requests().items())
    assert list(second.requests().items()) == rounds[stop_at:]
    assert list(first.requests().items()) == rounds[: min(STEPS, stop_at + staleness + 1)]


def test_a_run_stops_while_it_waits_for_a_round_and_goes_on_later(tmp_path: Path) -> None:
    """A round that never comes: its generator hangs; the step before it is in the checkpoint."""
    expected = start(tmp_path / "whole", recipe_with(1)).train()
    stuck, asked = threading.Event(), list[float]()

    def should_stop() -> bool:
        asked.append(time.perf_counter())
        return len(asked) > 5

    with ThreadPoolExecutor(1) as threads:
        run = start(tmp_path / "run", recipe_with(1), threads=threads)
        threads.submit(stuck.wait)
        begun = time.perf_counter()
        reached = run.train(should_stop=should_stop)
        assert time.perf_counter() - begun < 30
        stuck.set()
    assert reached.step == 0
    assert start(tmp_path / "run", recipe_with(1)).train() == expected


def test_a_notice_is_followed_by_a_checkpoint_at_once_and_changes_nothing(tmp_path: Path) -> None:
    expected = start(tmp_path / "whole", recipe_with(0, interval=0)).train()
    run, kept = start(tmp_path / "run", recipe_with(0, interval=0)), list[list[str]]()
    notices = [False, False, True, True, False]

    def is_warned() -> bool:
        # Written in the background: perhaps still under way, when it is looked for.
        kept.append(sorted(path.stem for path in tmp_path.glob("run/*")))
        return bool(notices) and notices.pop(0)

    run = replace(run, parts=replace(run.parts, is_warned=is_warned))
    assert run.train() == expected
    names = {name for names in kept for name in names}
    assert names >= {"step-000002", "step-000003"}
    assert not kept[2], "an interval of 0 saves only at the end"
    assert start(tmp_path / "run", recipe_with(0)).progress == expected


def test_an_interval_of_0_saves_only_at_the_end(tmp_path: Path) -> None:
    start(tmp_path, recipe_with(0, interval=0)).train()
    assert [path.name for path in tmp_path.iterdir()] == ["step-000006"]


def test_several_updates_of_a_round_publish_once_and_go_on_as_if_nothing_happened(
    tmp_path: Path,
) -> None:
    once = start(tmp_path / "once", recipe_with(1))
    once.train()
    recipe = recipe_with(1)
    recipe.learner.updates_per_round, recipe.learner.loss_over = 2, "planned"
    whole = start(tmp_path / "whole", recipe)
    expected = whole.train()
    assert [version.step for version in expected.versions] == [STEPS - 1, STEPS]
    assert expected.versions != once.progress.versions
    assert whole.requests().keys() == once.requests().keys()
    logged = ("staleness/steps", "policy/version_step", "reference/version_step", "learn/examples")
    for name in logged:
        assert [row[name] for row in whole.sink.metrics] == [row[name] for row in once.sink.metrics]
    cut = start(tmp_path / "cut", recipe)
    cut.train(until=3)
    assert start(tmp_path / "cut", recipe).train() == expected

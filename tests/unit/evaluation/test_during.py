"""Evaluations while a run learns; on Ray: `tests/ray/test_interrupted_driver.py`."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakePolicy, FakeReward, published
from tests.small_runs import small_recipe
from videorl import one_process
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.errors import WorkLostError
from videorl.evaluation.during import DuringTraining
from videorl.evaluation.guarding import Guarding
from videorl.evaluation.held_out import stream
from videorl.evaluation.kept_groups import KeptGroups
from videorl.evaluation.readings import read_readings
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import FanOut, read_metrics
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import CandidateGroup, Prompt, SampleRequest, ScoredGroup, WeightVersion

SETTINGS = {
    "num_steps": 6,
    "optimizer.learning_rate": 1e-1,
    "checkpoint.interval": 3,
    "evaluation.source": "moving_shapes",
    "evaluation.num_prompts": 3,
    "evaluation.best_of": 2,
    "evaluation.samples": 2,
    "evaluation.during_prompts": 2,
}


class Killed(BaseException):
    """As if the process had been killed."""


def make(checkpoints: Mapping[str, Path], run_dir: Path, interval: int = 2) -> Recipe:
    settings = {**SETTINGS, "evaluation.interval": interval}
    return small_recipe("moving_shapes", checkpoints, run_dir, settings)


def go(recipe: Recipe) -> RunFolder:
    with open_run(recipe) as folder:
        assert one_process.run(recipe, folder, lambda: False)
    return folder


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the metrics that are no times."""
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in read_metrics(folder.metrics)
    ]


@pytest.fixture(scope="module")
def whole(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return go(make(tiny_checkpoints, tmp_path_factory.mktemp("whole") / "run"))


def test_each_reading_is_logged_with_the_step_after_its_weights(whole: RunFolder) -> None:
    found = read_readings(whole.root)
    assert [reading.step for reading in found] == [0, 2, 4], "and not 6, which is the end"
    told = {row["step"]: row for row in rows(whole) if "evaluation/step" in row}
    assert {step: row["evaluation/step"] for step, row in told.items()} == {1: 0, 3: 2, 5: 4}
    for row, reading in zip(told.values(), found, strict=True):
        assert row["evaluation/reward/total"] == pytest.approx(reading.mean("reward/total"))
        low, high = row["evaluation/reward/total_low"], row["evaluation/reward/total_high"]
        assert low <= row["evaluation/reward/total"] <= high
        assert 0 <= row["evaluation/unseen/dynamic_degree"] <= 1
    digests = read_table(whole.archive, "steps")["published_digest"].to_pylist()
    assert [reading.digest for reading in found[1:]] == [digests[1], digests[3]]
    assert found[0].values != found[1].values, "the weights have changed"
    assert found[0].prompts == found[1].prompts == found[2].prompts


def test_it_changes_no_number_of_the_run(
    whole: RunFolder, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    without = go(make(tiny_checkpoints, tmp_path / "run", 0))
    digests = [
        read_table(folder.archive, "steps")["published_digest"] for folder in (whole, without)
    ]
    assert digests[0].equals(digests[1])
    plain = [
        {name: each for name, each in row.items() if not name.startswith(("evaluation/", "drift/"))}
        for row in rows(whole)
    ]
    assert plain == rows(without)
    assert not (without.root / "evaluation/during").exists()


def test_a_killed_run_goes_on_and_logs_the_same(
    whole: RunFolder,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """There is a checkpoint of every evaluated step: the kill after step 4 costs only that."""
    recipe, write = make(tiny_checkpoints, tmp_path / "run"), FanOut.write

    def kill(sinks: FanOut, step: int, metrics: Mapping[str, float]) -> None:
        write(sinks, step, metrics)
        if step == 4:
            raise Killed

    monkeypatch.setattr(FanOut, "write", kill)
    with pytest.raises(Killed):
        go(recipe)
    monkeypatch.setattr(FanOut, "write", write)
    seen = list[str]()
    sample = LocalGenerator.submit

    def watch(self: LocalGenerator, request: SampleRequest) -> Future[CandidateGroup]:
        seen.append(f"{request.version.step}{' behind' if request.is_behind else ''}")
        return sample(self, request)

    monkeypatch.setattr(LocalGenerator, "submit", watch)
    folder = go(recipe)
    assert rows(folder) == rows(whole)
    assert read_readings(folder.root) == read_readings(whole.root)
    assert not {"0 behind", "2 behind", "4 behind"} & {*seen}, "nothing is sampled twice"


class Slow:
    """A generator whose groups come from threads, each when it is let go."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self.inner = LocalGenerator(FakePolicy(), "", lambda _: published(0.5)[1])
        self.threads, self.go_on = threads, threading.Semaphore(0)
        self.begun = list[SampleRequest]()
        self.under_way, self.most = 0, 0
        self.is_over = False

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        self.begun.append(request)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        return self.threads.submit(self._sample, request)

    def _sample(self, request: SampleRequest) -> CandidateGroup:
        assert self.go_on.acquire(timeout=60)
        self.under_way -= 1
        if self.is_over:
            raise WorkLostError("pool generator was closed")
        return self.inner.submit(request).result()


def scorer(recipe: Recipe) -> LocalScorer:
    return LocalScorer({"moving_shapes": FakeReward()}, recipe.rewards, lambda _: {"edges": 0.1})


def test_a_bounded_number_is_under_way_and_scores_are_written_as_they_come(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = make(tiny_checkpoints, tmp_path / "run")
    version, _ = published(0.5)
    with ThreadPoolExecutor(8) as threads:
        generator, one = Slow(threads), scorer(recipe)
        requests = [SampleRequest(0, Prompt(n, f"ball {n}"), (n,), version) for n in range(6)]

        def run(request: SampleRequest) -> Future[ScoredGroup]:
            group = generator.submit(request)
            return threads.submit(lambda: one.submit(group.result()).result())

        file, reached = tmp_path / "groups.jsonl", list[int]()

        def should_stop() -> bool:
            if generator.under_way == 2 or len(generator.begun) == len(requests):
                generator.go_on.release()
            return False

        found = stream(requests, run, 2, should_stop, KeptGroups(file), reached.append)
    assert found is not None and len(found) == 6
    assert generator.most == 2
    assert reached[-1] == 6
    again = KeptGroups(file)
    assert Counter(again.find(request) is not None for request in requests) == {True: 6}
    # A request of fewer seeds finds the first candidates; one of others does not.
    two = SampleRequest(0, Prompt(9, "pair"), (1, 2), version)
    group = one.submit(generator.inner.submit(two).result()).result()
    again.add(two, group)
    first = KeptGroups(file).find(SampleRequest(0, Prompt(9, "pair"), (1,), version))
    assert first is not None and len(first.candidates) == 1
    assert first.candidates[0].candidate.seed == 1
    assert KeptGroups(file).find(SampleRequest(0, Prompt(9, "pair"), (2,), version)) is None


def test_pools_go_on_while_the_loop_does_and_an_ended_run_leaves_what_was_scored(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = make(tiny_checkpoints, tmp_path / "run")
    version = WeightVersion(2, published(0.5)[0].digest)
    given, guarding = (recipe, tmp_path), Guarding(recipe, tmp_path, {})
    with ThreadPoolExecutor(8) as threads:
        generator = Slow(threads)
        generator.inner = LocalGenerator(FakePolicy(), "", lambda _: published(0.5)[1])
        during = DuringTraining(*given, generator, scorer(recipe), True, 0, guarding)
        during.begin(version)
        assert during.settle(2, lambda: False), "what follows its own weights may begin"
        generator.go_on.release()
        assert not during.settle(3, lambda: bool(list(tmp_path.glob("evaluation/groups/*"))))
        during.close()
        generator.is_over = True
        generator.go_on.release()
        during.behind.wait_for_thread()
    assert all(request.is_behind for request in generator.begun)
    assert read_readings(tmp_path) == []
    with ThreadPoolExecutor(8) as threads:
        later = Slow(threads)
        during = DuringTraining(*given, later, scorer(recipe), True, 2, guarding)
        for _ in range(2):
            later.go_on.release()
        during.begin(version)
        assert during.settle(3, lambda: False)
        assert during.metrics()["evaluation/step"] == 2
        assert len(later.begun) <= 1, "what was scored is not sampled again"
        assert during.metrics() == {}
        during.close()

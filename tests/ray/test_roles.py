"""Scorer, archive and reference updater on a real Ray, with fake models."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest
import ray
from ray import ObjectRef
from ray.experimental.internal_kv import (
    _internal_kv_list,  # pyright: ignore[reportPrivateUsage]
)

from actors.placement import start_actor
from actors.pool.limits import reward_limits
from actors.reference import RayReferenceUpdater
from actors.reward import RayScorer
from actors.store.archive import RayArchive
from actors.store.media import fetch
from tests.fakes import FakeReward, grey, group_of
from tests.ray.ranks import processes
from tests.ray.roles import LIMITS, OPTIONS, first_time
from videorl.config import ArchiveConfig, RewardConfig
from videorl.errors import ArchiveError, MediaLostError
from videorl.sampling.local import LocalScorer
from videorl.types import Score, ScoredGroup, StepRecord, Video, WeightVersion

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


@dataclass
class DyingReward(FakeReward):
    """Ends its process in the middle of the first group."""

    marker: Path = Path()

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Score, or die."""
        if first_time(self.marker):
            os._exit(1)
        return super().score(videos, prompts)


def unseen(video: Video) -> dict[str, float]:
    """Count frames."""
    return {"frames": float(len(video.frames))}


def make_scorer(rewards: list[RewardConfig], load: Callable[[RewardConfig], Any]) -> RayScorer:
    """Make a scorer with one pool per reward."""
    count = len(rewards)
    return RayScorer(rewards, [OPTIONS] * count, [LIMITS] * count, unseen, load)


def score_levels(scorer: RayScorer | LocalScorer, *, remote: bool) -> ScoredGroup:
    """Score three grey videos."""
    videos = [grey(level) for level in (0, 51, 255)]
    return scorer.submit(group_of([ray.put(one) for one in videos] if remote else videos)).result(
        60
    )


def scores_of(group: ScoredGroup) -> list[tuple[Any, float, Any]]:
    """Return what was measured of each candidate."""
    return [(dict(one.score.dimensions), one.score.total, one.unseen) for one in group.candidates]


def test_a_scorer_combines_models_as_a_local_one_does() -> None:
    rewards = [RewardConfig(name="first"), RewardConfig(name="second", weight=-0.5)]
    models = {one.name: FakeReward() for one in rewards}
    scorer = make_scorer(rewards, lambda config: FakeReward())
    scored = score_levels(scorer, remote=True)
    scorer.close()
    local = score_levels(LocalScorer(models, rewards, unseen), remote=False)
    assert scores_of(scored) == scores_of(local)
    assert scored.candidates[1].score.total == pytest.approx(0.2 - 0.5 * 0.2)


def test_a_reward_worker_that_dies_in_mid_group_changes_nothing(tmp_path: Path) -> None:
    reward = DyingReward(marker=tmp_path / "died")
    scorer = make_scorer([RewardConfig(name="dying")], lambda config: reward)
    scored = score_levels(scorer, remote=True)
    assert [one.score.total for one in scored.candidates] == pytest.approx([0.0, 0.2, 1.0])
    assert scorer.pools[0].stats().replaced == 1
    scorer.close()


class MeetingReward(FakeReward):
    """Scores only while it scores another request too."""

    def __init__(self) -> None:
        super().__init__()
        self._meeting = Barrier(2)

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Wait for the other request, and score."""
        self._meeting.wait(180)
        return super().score(videos, prompts)


def test_a_reward_worker_takes_the_next_group_while_it_scores() -> None:
    reward = RewardConfig(name="meeting", prefetch=1)
    limits = replace(reward_limits(reward), max_retries=0)
    scorer = RayScorer([reward], [OPTIONS], [limits], unseen, lambda config: MeetingReward())
    groups = [group_of([ray.put(grey(level))]) for level in (51, 255)]
    scored = [future.result(120) for future in [scorer.submit(group) for group in groups]]
    assert [one.candidates[0].score.total for one in scored] == pytest.approx([0.2, 1.0])
    assert scorer.pools[0].stats().workers == 1
    scorer.close()


class Owner:
    """Owns a video, and takes it along when it dies."""

    def video(self) -> list[ObjectRef]:
        """Return a reference in a list."""
        return [ray.put(Video(np.zeros((9, 128, 128, 3), np.uint8), 8.0))]


def test_a_lost_video_loses_its_group_with_a_clear_error() -> None:
    owner = start_actor(Owner, OPTIONS)
    (lost,) = ray.get(owner.video.remote())
    ray.kill(owner)
    scorer = make_scorer([RewardConfig(name="one")], lambda config: FakeReward())
    with pytest.raises(MediaLostError, match="gone from the object store"):
        scorer.submit(group_of([ray.put(grey(3)), lost])).result(180)
    assert score_levels(scorer, remote=True).dropped == {}
    scorer.close()
    with pytest.raises(MediaLostError, match="has left the cluster"):
        fetch([lost])


def test_the_archive_writes_again_what_a_full_disk_refused(tmp_path: Path) -> None:
    scorer = LocalScorer({"one": FakeReward()}, [RewardConfig(name="one")], unseen)
    group = scorer.submit(group_of([grey(3), grey(9)])).result()
    directory = tmp_path / "archive"
    directory.write_text("a file where the folder should be")
    archive = RayArchive(directory, ArchiveConfig(videos="none"))
    version = WeightVersion(0, "v0")
    for step in (0, 1):
        archive.write(StepRecord(step, (), (group,), (), version, version, version))
    with pytest.raises(ArchiveError, match="step 0 could not be written"):
        archive.flush()
    directory.unlink()
    archive.flush()
    written = sorted(path.name for path in (directory / "candidates").iterdir())
    assert written == ["step-000000.parquet", "step-000001.parquet"]
    archive.truncate(1)
    assert [path.name for path in (directory / "candidates").iterdir()] == written[:1]
    archive.close()


def test_an_archive_writer_that_hangs_is_replaced_and_nothing_is_missing(tmp_path: Path) -> None:
    archive = RayArchive(tmp_path, ArchiveConfig(videos="none", timeout_s=5.0))
    version = WeightVersion(0, "v0")
    archive.write(StepRecord(0, (), (), (), version, version, version))
    archive.flush()
    (hung,) = processes("ArchiveWriter")
    os.kill(hung, signal.SIGSTOP)
    archive.write(StepRecord(1, (), (), (), version, version, version))
    with suppress(ArchiveError):  # on a busy machine, a new process may take as long
        archive.flush()
    while not set(processes("ArchiveWriter")) - {hung}:
        time.sleep(0.2)
    archive.flush()
    assert len(list((tmp_path / "candidates").iterdir())) == 2
    archive.close()


class RecordingLearner:
    """Remembers which versions became the reference; can fail to swap."""

    def __init__(self) -> None:
        self.swaps: list[int] = []
        self.fails = False

    def update_reference(self, version: WeightVersion) -> None:
        """Swap."""
        if self.fails:
            raise RuntimeError("rank lost")
        self.swaps.append(version.step)


def test_the_reference_is_recorded_only_after_the_swap() -> None:
    learner: Any = RecordingLearner()
    initial = WeightVersion(0, "v0")
    updater = RayReferenceUpdater(learner, 2, initial)
    steps = [updater.after_step(WeightVersion(step, f"v{step}")).step for step in range(1, 5)]
    assert (steps, learner.swaps) == ([0, 2, 2, 4], [2, 4])
    learner.fails = True
    with pytest.raises(RuntimeError, match="rank lost"):
        updater.after_step(WeightVersion(6, "v6"))
    state = updater.state()
    updater.close()
    assert state == {"history": [[0, "v0"], [2, "v2"], [4, "v4"]]}
    learner.fails = False
    again = RayReferenceUpdater(learner, 2, initial)
    again.restore(state)
    assert again.after_step(WeightVersion(6, "v6")).step == 6
    again.close()


def test_a_reference_updater_that_dies_is_followed_by_one_that_knows_as_much() -> None:
    learner: Any = RecordingLearner()
    updater = RayReferenceUpdater(learner, 2, WeightVersion(0, "v0"), "curriculum")
    namespace = f"videorl-{ray.get_runtime_context().get_job_id()}"
    doomed = {1: "curriculum/reference", 5: "curriculum/reference (2)"}
    for step in range(1, 7):
        if step in doomed:
            ray.kill(ray.get_actor(doomed[step], namespace))
        updater.after_step(WeightVersion(step, f"v{step}"))
    state = updater.state()
    updater.close()
    assert state == {"history": [[0, "v0"], [2, "v2"], [4, "v4"], [6, "v6"]]}
    assert learner.swaps == [2, 4, 6], "no swap was forgotten, and made again"


def test_an_actor_class_is_exported_once_however_often_it_is_started(tmp_path: Path) -> None:
    """Ray's head keeps what is exported until the job ends: a month of restarts would fill it."""

    def exported() -> int:
        return len(_internal_kv_list("ActorClass", namespace=b"fun"))

    def start() -> None:
        RayArchive(tmp_path, ArchiveConfig(videos="none")).close()

    start()
    before = exported()
    assert before > 0
    for _ in range(4):
        start()
    assert exported() == before

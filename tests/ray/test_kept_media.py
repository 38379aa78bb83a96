"""What is held in Ray's object store, counted in bytes, and how long."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import (
    GetTimeoutError,
    ObjectFetchTimedOutError,
    ObjectLostError,
    ObjectStoreFullError,
    OutOfMemoryError,
)

from actors.learner.command_log import CommandLog
from actors.learner.commands import Restored, Save, Step
from actors.learner.deadlines import policy_deadlines
from actors.placement import start_actor
from actors.reward import RayScorer
from actors.store.archive import RayArchive
from actors.store.handles import to_learn_from
from actors.store.kept_latents import Keepers
from actors.store.video_files import ENCODING, EncodingScorer
from jobs.bench.driver_probe import store_bytes
from tests.fakes import FakeReward, group_of
from tests.ray.roles import LIMITS, OPTIONS
from videorl.config import ArchiveConfig, Recipe, RewardConfig
from videorl.data.video_io import encode_mp4
from videorl.errors import MediaLostError, PoolLostError, ResourceError
from videorl.selection import best_vs_worst
from videorl.types import (
    CandidateGroup,
    PreferencePair,
    Score,
    ScoredCandidate,
    ScoredGroup,
    StepRecord,
    Video,
    WeightVersion,
)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

MIB = 2**20
LEVELS = (10, 200, 90, 150)
"""Grey of each candidate: the second is the best and the first the worst."""
VERSION = WeightVersion(0, "v0")
DEADLINES = policy_deadlines(Recipe(name="any"))


def grey_video(level: int) -> Video:
    """Return a video of 3 MiB."""
    return Video(np.full((16, 256, 256, 3), level, np.uint8), 8.0)


def sampled(count: int = len(LEVELS)) -> CandidateGroup:
    """Return a group with a video of 3 MiB and latents of 1 MiB per candidate, in the store."""
    group = group_of([ray.put(grey_video(level)) for level in LEVELS[:count]])
    candidates = (
        replace(one, latents=ray.put(np.full(MIB, one.index, np.uint8))) for one in group.candidates
    )
    return replace(group, candidates=tuple(candidates), prompt_embeds=ray.put(np.zeros(9)))


@pytest.fixture(scope="module")
def scorer() -> Iterator[RayScorer]:
    """A scorer with a worker of its own."""
    made = RayScorer(
        [RewardConfig(name="one")],
        [OPTIONS],
        [LIMITS],
        lambda video: {},
        lambda config: FakeReward(),
    )
    yield made
    made.close()


def quiet() -> int:
    """Return the bytes in the store when what earlier tests made has gone."""
    gc.collect()
    found = [store_bytes()]
    while len(found) < 5 or len(set(found[-5:])) > 1:
        time.sleep(0.1)
        found.append(store_bytes())
    return found[-1]


def settles_at(before: int, most: float) -> bool:
    """Wait until at most so many bytes more than `before` are in the store."""
    end = time.monotonic() + 180
    while True:
        gc.collect()
        if (held := store_bytes() - before) <= most:
            return True
        assert time.monotonic() < end, f"{held / MIB:.1f} MiB are held"
        time.sleep(0.1)


def encoding(scorer: RayScorer, config: ArchiveConfig) -> EncodingScorer:
    return EncodingScorer(scorer, scorer.files, best_vs_worst, config)


@pytest.mark.parametrize(
    ("videos", "latents", "files", "kept_latents"),
    [
        ("pairs", False, [True, True, False, False], [True, True, False, False]),
        ("all", True, [True] * 4, [True] * 4),
        ("none", True, [False] * 4, [True, True, False, False]),
    ],
)
def test_what_nobody_needs_is_freed_when_its_group_is_scored(
    scorer: RayScorer, videos: str, latents: bool, files: list[bool], kept_latents: list[bool]
) -> None:
    before = quiet()
    config = ArchiveConfig(videos=videos, latents=latents)
    group = encoding(scorer, config).submit(sampled()).result(120)
    candidates = [scored.candidate for scored in group.candidates]
    assert [one.video is not None for one in candidates] == files
    assert [one.latents is not None for one in candidates] == kept_latents
    # Files of a grey video have some kB, which Ray does not put into the store.
    assert settles_at(before, (sum(kept_latents) + 0.5) * MIB)


def test_files_of_pairs_are_archived_as_they_would_be_from_pixels(
    scorer: RayScorer, tmp_path: Path
) -> None:
    before, spent_s = quiet(), scorer.files.encode_s
    config = ArchiveConfig(videos="pairs", latents=True)
    archive = RayArchive(tmp_path, config)
    group = encoding(scorer, config).submit(sampled()).result(120)
    archive.write(record_of(group))
    archive.flush()
    found = {path.stem[-3:]: path.read_bytes() for path in tmp_path.glob("videos/*/*.mp4")}
    assert found == {f"c0{n}": encode_mp4(grey_video(LEVELS[n])) for n in (0, 1)}
    table = pq.read_table(tmp_path / "candidates" / "step-000000.parquet")
    assert table["latents"].to_pylist() == [b"\0" * MIB, b"\1" * MIB, None, None]
    assert scorer.files.encode_s > spent_s
    del group
    archive.close()
    assert settles_at(before, 0.5 * MIB)


def record_of(group: ScoredGroup, step: int = 0) -> StepRecord:
    pairs = tuple(best_vs_worst(group))
    return StepRecord(step, (), (group,), pairs, VERSION, VERSION, VERSION)


def test_a_video_is_encoded_elsewhere_if_its_worker_is_gone(scorer: RayScorer) -> None:
    gone = start_actor(Gone, {**OPTIONS, "concurrency_groups": {ENCODING: 1}})
    ray.kill(gone)
    video = ray.put(grey_video(9))
    (content,) = ray.get([scorer.files.submit(video, gone).result(120)])
    assert content == encode_mp4(grey_video(9))


class Gone:
    """Has the method, and no time to answer."""

    def encode(self, video: Video) -> tuple[float, bytes]:
        """Sleep."""
        time.sleep(600)
        return 0.0, b""


def test_a_video_that_cannot_be_encoded_is_left_out_and_its_step_is_archived(
    scorer: RayScorer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ArchiveConfig(videos="pairs")
    group = encoding(scorer, config).submit(sampled(2)).result(120)
    first, second = group.candidates
    still = ray.put(Video(np.zeros((0, 8, 8, 3), np.uint8), 8.0))
    broken = replace(second.candidate, video=scorer.files.submit(still))
    group = replace(group, candidates=(first, replace(second, candidate=broken)))
    archive = RayArchive(tmp_path, config)
    archive.write(record_of(group))
    archive.flush()
    assert [path.stem[-3:] for path in tmp_path.glob("videos/*/*.mp4")] == ["c00"]
    assert "expected frames [F, H, W, 3], got (0, 8, 8, 3)" in caplog.text
    archive.close()


@pytest.mark.parametrize("replays", [True, False])
def test_commands_hold_the_latents_of_pairs_since_the_last_checkpoint(replays: bool) -> None:
    """Each step has a pair: 2 MiB of latents, and videos that no command holds."""
    options = {**OPTIONS, "max_concurrency": 9}
    log: Any = start_actor(CommandLog, options, 5, DEADLINES)
    if not replays:
        ray.get(log.keep_none.remote())
    before = quiet()
    ray.get([log.starting.remote(1), log.restored.remote(Restored(0, (VERSION,), None))])

    def give(index: int, command: Any) -> None:
        ray.get(log.append.remote(index, command))
        ray.get(log.command.remote(index))
        ray.get(log.answer.remote(index, None))
        ray.get(log.result.remote(index))

    for step in range(3):
        give(step, Step(step, learned_of(sampled(2))))
    rounds = 3 if replays else 1  # the newest goes when the next is asked for
    assert settles_at(before, (2 * rounds + 0.5) * MIB)
    assert store_bytes() - before >= 2 * rounds * MIB
    give(3, Save({}))
    assert settles_at(before, 0.5 * MIB)
    ray.kill(log)


def learned_of(group: CandidateGroup) -> Any:
    """Return what a learner is given of a group whose first candidate is the better."""
    chosen, rejected = (ScoredCandidate(one, Score({}, 0.0)) for one in group.candidates)
    pair = PreferencePair(group.prompt, group.prompt_embeds, chosen, rejected, 1.0)
    return (to_learn_from(pair),)


class Tired:
    """A keeper that fails as often as it is told, and then copies."""

    def __init__(self, errors: list[Exception]) -> None:
        self.errors = errors

    def keep(self, refs: list[ObjectRef]) -> tuple[Any, ...]:
        """Fail, or copy."""
        if self.errors:
            raise self.errors.pop(0)
        return True, *ray.get(refs)


class TiredKeepers(Keepers):
    """Its keeper fails at first; no pauses."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__(pause_s=0.0)
        self.errors = list(errors)

    def _started(self, node: str) -> ActorHandle:
        return start_actor(Tired, OPTIONS, self.errors)


def test_pressure_is_waited_for_and_what_is_lost_is_sampled_again() -> None:
    latents = ray.put(np.arange(9))
    full = [OutOfMemoryError("the node has no memory"), ObjectStoreFullError("full")]
    slow = [GetTimeoutError("slow"), ObjectFetchTimedOutError("00", b"", "")]
    keepers = TiredKeepers(*full, *slow)
    (copy,) = keepers.copies([latents]).result(180)
    assert copy != latents and ray.get(copy)[-1] == 8
    keepers.close()
    keepers = TiredKeepers(ObjectLostError("00", b"", ""))
    with pytest.raises(MediaLostError, match="gone from the object store"):
        keepers.copies([latents]).result(180)
    keepers.close()
    keepers = TiredKeepers(*full * 9)
    with pytest.raises(PoolLostError, match=r"12 times in a row; the last time: .*full"):
        keepers.copies([latents]).result(180)
    keepers.close()


def test_a_resource_that_no_node_has_is_refused_at_once() -> None:
    with pytest.raises(ResourceError, match=r"cluster.keep_latents_on=safe: no node"):
        Keepers("safe").check()

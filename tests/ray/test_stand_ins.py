"""Quick versions of the benchmarks and the soak on stand-ins, and the arithmetic behind them."""

from __future__ import annotations

import copy
import gc
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from actors.pool.limits import reward_limits
from actors.pool.metrics import PoolSizesSink
from jobs.bench.driver_probe import Probe, probe, store_bytes
from jobs.bench.growth import Moment as PoolMoment
from jobs.bench.growth import Resize, phases, plot
from jobs.bench.overlap import overlap
from jobs.bench.scale import Load, measure
from jobs.bench.soak_run import Sample, growths, live_actors, soak
from jobs.bench.stand_in_run import (
    StandInRun,
    stand_in_recipe,
    stand_in_run,
    wait_for_workers,
)
from jobs.bench.stand_ins import LATENT_BYTES, Pace, Work
from jobs.bench.thin_head import Load as HeadLoad
from jobs.bench.thin_head import Moment, numbers, smallest_fraction
from videorl.config import Recipe, RewardConfig
from videorl.futures import once
from videorl.loop import train
from videorl.rollouts import Rollouts
from videorl.run.background import repeating
from videorl.run.folder import open_run

pytestmark = pytest.mark.ray


class Rows(list[dict[str, float]]):
    """A metric sink."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.append(dict(metrics))


@pytest.mark.usefixtures("cluster")
def test_media_of_every_round_are_freed(tmp_path: Path) -> None:
    before, rows = store_bytes(), Rows()
    recipe = stand_in_recipe(str(tmp_path), num_steps=5, prompts__per_round=4)
    with open_run(recipe) as folder, stand_in_run(recipe, folder, rows, Pace(0.01)) as run:
        train(recipe, run.parts, run.progress, lambda: False)
        assert [row["learner/bytes"] for row in rows] == [8.0 * LATENT_BYTES] * 5
        gc.collect()
        end = time.monotonic() + 180
        while store_bytes() - before > 4 * LATENT_BYTES:  # 40 were made
            assert time.monotonic() < end, store_bytes() - before
            time.sleep(0.1)
        faults = {"generator/uncompiled": lambda: 2, "generator/none": lambda: 0}
        spent = iter([{"score": 2.0}, {"score": 5.0}])
        PoolSizesSink(rows, run.pools, faults, lambda: next(spent)).write(5, {"time/step_s": 1.0})
    assert rows[-1]["time/step_s"] == 1.0
    assert rows[-1]["pool/generator_workers"] == rows[-1]["pool/reward_workers"] == 1.0
    assert rows[-1]["work/score_s"] == 3.0, "what was before is of no step"
    assert "pool/generator_fenced" not in rows[-1]
    assert rows[-1]["generator/uncompiled"] == 2.0 and "generator/none" not in rows[-1]
    assert rows[-1]["pool/generator_queued"] == rows[-1]["pool/reward_busy"] == 0.0


@pytest.mark.usefixtures("cluster")
def test_many_generators_share_processes() -> None:
    load = Load(num_workers=12, num_shared=2, rate=24.0, least_s=0.0)
    found = measure(load)
    assert found["candidates"] > 0 and found["requests repeated"] == 0
    assert 0 < found["share of the ideal throughput"] < 1.5
    assert max(found["object store, MiB, peak in each tenth"]) < 512


@pytest.mark.usefixtures("cluster")
def test_split_prompts_use_every_generator(tmp_path: Path) -> None:
    """Eight prompts of four candidates, and as many sampled ahead, are 64 candidates."""
    whole = stand_in_recipe(
        str(tmp_path),
        num_steps=2,
        prompts__per_round=8,
        prompts__candidates_per_prompt=4,
        rollouts__max_staleness=1,
        generators__min_workers=64,
        generators__max_workers=64,
        generators__candidates_per_request=0,
    )
    split = copy.deepcopy(whole)
    split.generators.candidates_per_request = "auto"
    with (
        open_run(whole) as folder,
        stand_in_run(whole, folder, Rows(), Pace(2.0), work=Work(num_shared=4)) as run,
    ):
        wait_for_workers(run.generator.pool, 64, 60.0)
        expected, most_of_whole = sampled(whole, run)
        found, most_of_split = sampled(split, run)
    assert (most_of_whole, most_of_split) == (16, 64)
    assert found == expected
    assert len(found) == 2 * 8 * 4


def sampled(recipe: Recipe, run: StandInRun) -> tuple[list[tuple[Any, ...]], int]:
    """Sample and score two rounds; return their candidates, and most generators that worked."""
    busy = list[int]()
    parts = run.parts
    with repeating(lambda: busy.append(run.generator.pool.stats().busy), 0.02, "busy generators"):
        rollouts = Rollouts(recipe, parts.prompts, parts.generator, parts.scorer, 0)
        rollouts.admit(run.progress.versions)
        groups = [group for number in range(2) for group in rollouts.take(number).groups]
    assert all(not group.dropped for group in groups)
    return [
        (one.candidate.id, one.candidate.seed, one.candidate.version, one.score.total)
        for group in groups
        for one in group.candidates
    ], max(busy)


@pytest.mark.usefixtures("cluster")
def test_without_staleness_stages_take_turns() -> None:
    found = overlap(Pace(0.05, 0.02, 0.2), max_staleness=0, num_steps=2)
    assert found["best, s"] == pytest.approx(0.2)
    assert found["step, s"] >= 4 * 0.05 + 0.02 + 0.2


@pytest.mark.usefixtures("cluster")
@pytest.mark.slow
def test_a_short_soak_loses_nothing_and_leaves_nothing_behind() -> None:
    """What a short run can prove; slow growth is for `python -m jobs.bench.soak`."""
    before, num_actors = probe(), count_actors()
    # A worker that hangs is replaced after `patience_s`: far above what a slow machine needs.
    found = soak(minutes=0.25, fault_every_s=3.0, sample_every_s=2.0, patience_s=20.0, seed=0)
    assert found["groups lost"] == 0 and found["steps"] > 0
    assert sum(found["faults"].values()) >= 3

    def is_left() -> dict[str, int]:
        gc.collect()
        now = probe()
        grown = {
            "actors": count_actors() - num_actors,
            # A call that was under way in a killed worker may leave its results' names behind.
            "objects": now.num_references - before.num_references - 24,
            "store": now.store_bytes - before.store_bytes - 4 * LATENT_BYTES,
        }
        return {name: one for name, one in grown.items() if one > 0}

    end = time.monotonic() + 120
    while left := is_left():
        assert time.monotonic() < end, left
        time.sleep(0.5)


def count_actors() -> int:
    return sum(map(len, live_actors().values()))


def sample(at: float, num_fds: int, rss_mib: float) -> Sample:
    return Sample(Probe(at, 0.0, int(rss_mib * 2**20), num_fds, 9, 9, 9, 0), 9)


def test_a_leak_is_told_from_a_warm_up() -> None:
    rows = [sample(60.0 * n, 30 + n, 300.0 + min(n, 10)) for n in range(100)]
    found = growths(rows)
    assert found["num_fds"]["slope per hour"] == pytest.approx(60.0)
    assert found["num_fds"]["growth"] == pytest.approx(79.0)
    assert not found["num_fds"]["is_steady"]
    assert found["memory_bytes"]["growth"] == pytest.approx(0.0, abs=1e-6)
    assert found["memory_bytes"]["is_steady"]


def test_numbers_of_the_head_are_those_of_the_measured_steps() -> None:
    load = HeadLoad(num_workers=4, num_shared=1, per_round=4, steps=5, fraction=4)
    assert (load.warm_up, load.video_bytes()) == (2, 81 * 240 * 416 * 3)
    moments = [
        Moment(10.0 * n, (100 + n) * 2**20, {"GCS": 2 * n * 2**20}, n * 2**20, 0, 4 * n, 38.0 * n)
        for n in range(8)
    ]
    found = numbers(load, moments, [2**20] * 8)
    assert found["wall, s"] == 50.0
    assert found["pixels per step, MiB"] == pytest.approx(8 * 81 * 240 * 416 * 3 / 2**20)
    assert found["into the head's store per step, MiB"] == 1.0
    assert found["driver, MiB, in each fifth"] == [102.0, 103.0, 104.0, 105.0, 106.5]
    assert found["GCS, MiB, in each fifth"] == [4.0, 6.0, 8.0, 10.0, 13.0]
    assert found["share of the ideal throughput"] == pytest.approx(0.95)
    whole = HeadLoad()
    assert smallest_fraction(whole, 2.01 * whole.store_bytes()) == 1
    assert smallest_fraction(whole, 1.99 * whole.store_bytes()) == 2


def test_phases_of_a_resized_pool_and_their_plot() -> None:
    moments = [
        PoolMoment(float(at), 1 if at < 12 else 3, at if at < 12 else 3 * at) for at in range(21)
    ]
    resizes = [Resize(0.0, 1), Resize(10.0, 3)]
    first, second = phases(moments, resizes, rate=1.0)
    assert (second["reached after, s"], second["ideal"]) == (2.0, 3.0)
    assert second["requests/s from then"] == pytest.approx(3.0)
    assert first["requests/s from then"] == pytest.approx(1.0)
    drawn = ElementTree.fromstring(plot(moments, resizes))
    names = {text.text for text in drawn.findall(".//{*}text")}
    assert {"asked for by videorl scale", "ready generators", "requests/s over 4 s"} <= names
    assert len(drawn.findall(".//{*}path")) == 3


def test_a_kept_future_lets_go_of_what_its_callbacks_held() -> None:
    class Media:
        """Something large."""

    kept: Future[int] = Future()
    media, seen = Media(), list[int]()
    held = weakref.ref(media)
    kept.add_done_callback(once(lambda done, media=media: seen.append(done.result())))
    del media
    kept.set_result(1)
    assert seen == [1] and held() is None


@pytest.mark.parametrize(("max_workers", "most"), [(0, 2), (5, 5)])
def test_reward_workers_are_as_many_as_asked_for_at_most(max_workers: int, most: int) -> None:
    limits = reward_limits(RewardConfig(name="any", num_workers=2, max_workers=max_workers))
    assert (limits.min_workers, limits.max_workers) == (2, most)

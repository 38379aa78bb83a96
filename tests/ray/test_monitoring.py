"""Metrics of a run on Ray as a real Prometheus has them: names, dashboard, alerts."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import ray
import ray._private.worker
from ray.util.state import list_actors, list_jobs

from actors.assembly import work_seconds
from actors.monitoring.sink import ray_metrics
from actors.naming import named
from actors.placement import start_actor
from actors.pool.metrics import PoolSizesSink
from actors.store.weights import WeightStore
from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run
from jobs.bench.stand_ins import Pace, SleepingReward
from tests.loop_runs import MemorySink
from tests.prometheus import MONITORING, Prometheus, needs_prometheus, prometheus, wait_for
from videorl import __version__
from videorl.config import Recipe
from videorl.errors import WeightMismatchError
from videorl.loop import train
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import RunSink, fan_out
from videorl.types import LearnerOutput, Score, TrainingExample, Video

pytestmark = pytest.mark.ray

PACE = Pace(0.05, 0.02, 0.02)
MISBEHAVING = {
    "VideorlRewardHacked",
    "VideorlLikelihoodDisplacement",
    "VideorlNothingLearned",
    "VideorlWorkLost",
    "VideorlUpdatesSkipped",
}
NEVER = ("groups_dropped", "pool_repeated_for_speed")
"""Counters of faults that neither phase of the run must have; on a slow machine it may."""


def queries() -> list[str]:
    """Every query of the dashboard, as Grafana asks it for all runs."""
    board = json.loads((MONITORING / "grafana" / "runs.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    return [query.replace("$run", ".*").replace("$__rate_interval", "1m") for query in asked]


def hurried(rules: str) -> str:
    """Rules whose quarters of an hour are seconds, and which need not hold for minutes."""
    rules = re.sub(r"for: \d+m", "for: 0s", rules)
    return rules.replace("15m", "15s").replace("[1h]", "[60s]")


def config(rules: Path) -> str:
    """The file that is shipped, for the Ray of these tests, four times as often."""
    text = (MONITORING / "prometheus.yml").read_text()
    node = ray._private.worker._global_node
    assert node is not None
    session = node.get_session_dir_path()
    for old, new in (
        ("/tmp/ray/prom_metrics", f"{session}/prom_metrics"),
        ("- rules.yml", f"- {rules}"),
        ("scrape_interval: 10s", "scrape_interval: 1s"),
        ("evaluation_interval: 10s", "evaluation_interval: 1s"),
        ("refresh_interval: 10s", "refresh_interval: 1s"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


@dataclass
class Moody(SleepingReward):
    """Scores like `SleepingReward`; once a file exists, all alike and ever higher, with a NaN.

    While the file `fence` is beside it, it says that its worker is not to be trusted.
    """

    trigger: Path = Path()

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        if (fence := self.trigger.with_name("fence")).exists():
            fence.unlink()
            raise WeightMismatchError("these are not the weights that were published")
        if not self.trigger.exists():
            return super().score(videos, prompts)
        level = 200.0 + time.time() - self.trigger.stat().st_mtime
        levels = [level] * (len(videos) - 1) + [math.nan]
        return [Score({"level": each}, each) for each in levels]


@dataclass
class Learning:
    """A stand-in learner that reports what a real one does, and worse once a file exists."""

    inner: Any
    trigger: Path

    def step(self, step: int, examples: Sequence[TrainingExample]) -> LearnerOutput:
        started, is_bad = time.perf_counter(), self.trigger.exists()
        output = self.inner.step(step, examples)
        metrics = {
            "learn/examples": float(len(examples)),
            "learn/loss": 0.69,
            "learn/accuracy": 0.6,
            "learn/margin": 0.1,
            "optimizer/grad_norm": 1.0,
            "optimizer/skipped": float(is_bad),
            "dpo/winner_error_change": 0.5 if is_bad else 0.01,
            "unseen/dynamic_degree": 1.0 / (1 + step) if is_bad else 0.5,
            "weights/bytes": 1000.0,
            "weights/drift": 0.01 * step,
            "time/learn_s": 0.75 * (time.perf_counter() - started),
            "time/publish_s": 0.25 * (time.perf_counter() - started),
        }
        return replace(output, metrics=metrics)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


@contextmanager
def running(folder: RunFolder, recipe: Recipe, trigger: Path) -> Iterator[tuple[MemorySink, float]]:
    """A run that works on a thread inside the block, and misbehaves once `trigger` exists.

    Yields its metrics, and when it began, in seconds since 1970.
    """
    rows, stop = MemorySink(), threading.Event()
    reward = Moody(PACE, trigger=trigger)
    with (
        stand_in_run(recipe, folder, rows, PACE, reward=reward) as run,
        ray_metrics(recipe, folder, run.pools) as metrics,
    ):
        began = time.time()
        both: Any = fan_out([metrics, cast(RunSink, rows)])
        work = partial(work_seconds, run.generator, run.scorer)
        sink = PoolSizesSink(both, run.pools, work=work)
        learner: Any = Learning(run.learner, trigger)
        parts = replace(run.parts, learner=learner, sink=sink)
        thread = threading.Thread(target=train, args=(recipe, parts, run.progress, stop.is_set))
        thread.start()
        try:
            yield rows, began
        finally:
            stop.set()
            thread.join()


@needs_prometheus
@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_run_in_prometheus(tmp_path: Path) -> None:
    """A run works, then misbehaves: every query of the dashboard has an answer, alerts fire."""
    rules, trigger = tmp_path / "rules.yml", tmp_path / "misbehave"
    rules.write_text(hurried((MONITORING / "rules.yml").read_text()))
    asked = queries()
    assert len(asked) > 30
    recipe = stand_in_recipe(
        str(tmp_path / "first"),
        num_steps=10**6,
        prompts__per_round=2,
        prompts__candidates_per_prompt=3,
    )
    with (
        open_run(recipe) as folder,
        prometheus(tmp_path, config(rules)) as server,
        running(folder, recipe, trigger) as (rows, began),
    ):
        wait_for(lambda: server.query("ray_videorl_step > 5"), "the first steps", 180)
        wait_for(lambda: server.query("ray_node_disk_free"), "Ray's own metrics", 180)
        check_names()
        time.sleep(3)
        assert not {name for name in server.firing() if "Disk" not in name}, "it is well"
        answered = {query for query in asked if server.query(query)}
        trigger.touch()
        wait_for(lambda: server.firing() >= MISBEHAVING, "the alerts", 120)
        trigger.with_name("fence").touch()
        wait_for(lambda: "VideorlGeneratorFenced" in server.firing(), "the fenced worker", 180)
        about_faults = {query for query in asked if any(name in query for name in NEVER)}

        def silent() -> set[str]:
            return {query for query in asked if not server.query(query)} - answered

        # A counter that is new has an increase from its second sample on.
        wait_for(lambda: silent() <= about_faults, "an answer to every query", 180)
        assert server.rule_errors() == {}
        check_values(server, rows, began)


def check_names() -> None:
    """Names, which log lines begin with too, in the dashboard and the state API."""
    found: Any = list_actors(
        ray.get_runtime_context().gcs_address,
        filters=[("state", "=", "ALIVE"), ("ray_namespace", "=", own_namespace())],
        detail=True,
    )
    shown = {actor.name: actor.repr_name for actor in found if actor.name.startswith("first/")}
    roles = {"generator-0", "reward-0", "encoder-0", "weights", "archive", "reference"}
    assert set(shown) == {f"first/{role}" for role in roles}
    assert shown.pop("first/reference") == "", "its class knows no Ray"
    assert all(name == shown_as for name, shown_as in shown.items())


def own_namespace() -> str:
    return f"videorl-{ray.get_runtime_context().get_job_id()}"


def check_values(server: Prometheus, rows: MemorySink, began: float) -> None:
    """Numbers are those of the record, and the stages of the driver add up to the wall time."""
    tags = {"run": "first"}
    ((labels, value),) = server.query('ray_videorl_unseen{metric="dynamic_degree",run="first"}')
    assert labels.items() >= tags.items() and len(labels["run_id"]) == 8
    assert value in [row["unseen/dynamic_degree"] for row in rows.metrics]
    (of_level,) = server.query('ray_videorl_reward{dimension="level"}')
    assert of_level[0]["reward"] == "reward"
    # Counters of the runs of other tests stay in Ray's agent.
    own = '{run="first"}'
    stages = f"sum by (run) (ray_videorl_stage_seconds_total{own})"
    ((_, start),) = server.query(f"ray_videorl_last_step_timestamp_seconds - on (run) {stages}")
    assert start == pytest.approx(began, abs=3.0), "stages add up to the time since the start"
    sampling = server.query(f"sum by (stage) (ray_videorl_work_seconds_total{own})")
    assert {labels["stage"] for labels, _ in sampling} == {"sample", "score"}
    reasons = server.query(f"sum by (reason) (ray_videorl_candidates_dropped_total{own})")
    assert [labels["reason"] for labels, _ in reasons] == ["score_not_finite"]


@pytest.mark.usefixtures("cluster")
def test_the_list_of_jobs_says_which_run_a_driver_makes() -> None:
    job = ray.get_runtime_context().get_job_id()
    jobs: Any = list_jobs(ray.get_runtime_context().gcs_address, detail=True)
    (found,) = [found for found in jobs if found.job_id == job]
    assert found.metadata["job_name"] == "of_tests"
    assert found.metadata["run"].endswith("runs/of_tests")
    assert found.metadata["videorl"] == __version__


@pytest.mark.usefixtures("cluster")
def test_actors_of_one_name_do_not_clash() -> None:
    """A name that was given before, perhaps to an actor that is ending, gets a number."""
    options = {"num_cpus": 0}
    stores = [start_actor(WeightStore, named(options, "twice", "weights"), 1) for _ in range(2)]
    shown = ray.get([store.__ray_call__.remote(repr) for store in stores])
    assert shown == ["twice/weights", "twice/weights (2)"]
    assert named(options, "", "weights") == options
    for store in stores:
        ray.kill(store)

"""The command that drives a run is killed and stopped, and the run goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from actors.online_run import run_online
from tests.ray.conftest import ROOT
from tests.ray.whole_runs import STEPS, Baseline, assert_same_archive, overrides
from videorl.evaluation.readings import read_readings
from videorl.recipes.reading import load_recipe
from videorl.report.ending import version_to_json
from videorl.run.folder import open_run
from videorl.run.sinks import read_metrics
from videorl.run.stopping import stop_on_signal
from videorl.watch.fixed_prompts import read_strips

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

HELD_OUT = 12
DURING = 4
BESIDE: dict[str, object] = {
    "evaluation__source": "moving_shapes",
    "evaluation__num_prompts": HELD_OUT,
    "evaluation__best_of": 2,
    "evaluation__samples": 1,
    "evaluation__num_videos": 2,
    "evaluation__interval": 2,
    "evaluation__during_prompts": DURING,
    "evaluation__during_samples": 1,
    "fixed_prompts__interval": 2,
    "fixed_prompts__num_prompts": 2,
}
"""Settings of what is sampled beside training."""


def start_driver(settings: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "jobs.train", "moving_shapes", *settings],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_until(holds: Callable[[], bool], log: Path, driver: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while not holds():
        assert driver.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def sampled(folder: Path) -> list[tuple[str, str]]:
    """Return weights and prompt of every held-out group that was sampled, in order."""
    lines = [
        line
        for file in folder.glob("evaluation/groups/*.jsonl")
        for line in file.read_text().splitlines(keepends=True)
        if line.strip() and line.endswith("\n")
    ]
    groups = [json.loads(line)["group"] for line in lines]
    return [(group["candidates"][0]["version"][1], group["prompt"]["text"]) for group in groups]


def stop_after_steps(folder: Path, count: int, is_over: threading.Event) -> None:
    """Send the signal that clusters send, once so many steps are done, if the run still goes on."""
    metrics = folder / "metrics.jsonl"
    while not is_over.wait(0.02):
        if metrics.exists() and metrics.read_text().count("\n") >= count:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def test_a_driver_killed_in_its_first_evaluation_and_stopped_in_training_goes_on(
    baseline: Baseline, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The command is killed; on the cluster of all tests it is then stopped, and then it ends."""
    folder, log = tmp_path / "run", tmp_path / "killed.log"
    settings = overrides(tiny_checkpoints["wan"], folder, **BESIDE)
    driver = start_driver(settings, log)
    wait_until(lambda: bool(sampled(folder)), log, driver)
    # Two agents of Ray's own notice a minute late that they are alone; they touch no run folder.
    started = [
        one
        for one in psutil.Process(driver.pid).children(recursive=True)
        if not one.name().endswith("Agent")
    ]
    driver.kill()
    driver.wait(180)
    _, left = psutil.wait_procs(started, timeout=120)
    assert not left, "processes outlived the driver"
    before = sampled(folder)
    assert 0 < len(before) < HELD_OUT

    recipe = load_recipe("moving_shapes", settings)
    is_over = threading.Event()
    watch = threading.Thread(target=stop_after_steps, args=(folder, 3, is_over))
    with open_run(recipe) as opened, stop_on_signal() as should_stop:
        watch.start()
        try:
            assert not run_online(recipe, opened, should_stop)
        finally:
            is_over.set()
            watch.join()
    assert not (folder / "summary.json").exists()
    with open_run(recipe) as opened:
        assert run_online(recipe, opened, lambda: False)
    after = sampled(folder)
    assert set(before) <= set(after)
    assert len(after) == len(set(after)), "nothing was sampled twice"
    assert_whole_readings(folder, len(after))
    summary = json.loads((folder / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == [
        "starting workers and loading models",
        "training",
        "evaluating the aligned policy",
        "stopping workers",
    ]
    assert summary["evaluation"]["num_prompts"] == HELD_OUT
    assert summary["policy_version"] == version_to_json(baseline.version)
    assert [row["step"] for row in read_metrics(folder / "metrics.jsonl")] == list(range(STEPS))
    assert_same_archive(folder, baseline.folder)
    assert_whole_strip(folder, baseline.version.digest)


def assert_whole_readings(folder: Path, num_groups: int) -> None:
    """Evaluations in between have no hole; each is logged with the step after its weights.

    Of the base they take groups that are there; others are made with the weights of steps 2 and 4.
    """
    assert num_groups == 2 * (HELD_OUT + DURING)
    assert len(list(folder.glob("evaluation/before/*.mp4"))) == 2
    readings = read_readings(folder)
    assert [reading.step for reading in readings] == [0, 2, 4]
    assert all(len(reading.prompts) == DURING for reading in readings)
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row.get("evaluation/step") for row in rows] == [None, 0, None, 2, None, 4]
    assert [row["step"] for row in rows if "drift/predictions" in row] == [1, 3, 5]


def assert_whole_strip(folder: Path, digest: str) -> None:
    """The videos of the fixed prompts have no hole, whenever the run was stopped."""
    strips, _, problems = read_strips(folder, 100)
    assert problems == []
    assert len(strips) == 2
    for strip in strips:
        assert [frame.step for frame in strip.frames] == [0, 2, 4, 6]
        assert all(frame.video and "total" in frame.scores for frame in strip.frames)
    scores = json.loads((folder / "fixed_prompts/step-000006/scores.json").read_text())
    assert scores["digest"] == digest

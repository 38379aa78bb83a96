"""A run whose base evaluation is interrupted goes on with the prompts that are missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ray.conftest import ROOT
from tests.small_runs import SETTINGS

pytestmark = [pytest.mark.ray, pytest.mark.slow]

NUM_PROMPTS = 12


def command(checkpoint: Path, folder: Path) -> list[str]:
    settings = {
        **SETTINGS,
        "num_steps": 1,
        "rewards": "[{name: moving_shapes, num_cpus: 0.25}]",
        "policy.path": checkpoint,
        "run_dir": folder,
        "evaluation.source": "moving_shapes",
        "evaluation.num_prompts": NUM_PROMPTS,
        "evaluation.best_of": 2,
        "evaluation.samples": 1,
        "evaluation.num_videos": 2,
        # A stop comes between prompts, not when all are done.
        "sampling.num_inference_steps": 100,
    }
    named = [f"{key}={value}" for key, value in settings.items()]
    return [sys.executable, "-m", "jobs.train", "moving_shapes", *named]


def start(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    with log.open("w") as file:
        return subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )


def sampled(folder: Path) -> list[tuple[str, str]]:
    """Return weights and prompt of every group that was sampled, in order."""
    lines = [
        line
        for file in folder.glob("evaluation/groups/*.jsonl")
        for line in file.read_text().splitlines()
        if line
    ]
    groups = [json.loads(line)["group"] for line in lines]
    return [(group["candidates"][0]["version"][1], group["prompt"]["text"]) for group in groups]


def test_a_stopped_base_evaluation_samples_only_what_is_missing(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = command(tiny_checkpoints["wan"], folder)
    stopped = start(arguments, tmp_path / "stopped.log")
    end = time.monotonic() + 300
    while not sampled(folder):
        assert stopped.poll() is None and time.monotonic() < end, (
            tmp_path / "stopped.log"
        ).read_text()
        time.sleep(0.05)
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait(120) == 130, (tmp_path / "stopped.log").read_text()
    before = sampled(folder)
    assert 0 < len(before) < NUM_PROMPTS
    assert not (folder / "evaluation/before.json").exists()

    finished = start(arguments, tmp_path / "finished.log")
    assert finished.wait(300) == 0, (tmp_path / "finished.log").read_text()
    after = sampled(folder)
    assert set(before) <= set(after)
    assert len(after) == len(set(after)) == 2 * NUM_PROMPTS, "nothing was sampled twice"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["evaluation"]["num_prompts"] == NUM_PROMPTS
    videos = sorted(path.name for path in folder.glob("evaluation/before/*.mp4"))
    assert len(videos) == 2

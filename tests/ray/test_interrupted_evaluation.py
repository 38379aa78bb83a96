"""A run whose base evaluation is interrupted goes on with the prompts that are missing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from actors.online_run import run_online
from tests.small_runs import SETTINGS
from videorl.config import Recipe
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.stopping import stop_on_signal

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

NUM_PROMPTS = 8


def chosen(checkpoint: Path, folder: Path) -> Recipe:
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
        "sampling.num_inference_steps": 60,
    }
    return load_recipe("moving_shapes", [f"{key}={value}" for key, value in settings.items()])


def run(recipe: Recipe) -> bool:
    """Run as the command does on a cluster, but on the one of all tests."""
    with open_run(recipe) as folder, stop_on_signal() as should_stop:
        return run_online(recipe, folder, should_stop)


def stop_when_sampled(folder: Path) -> None:
    """Send the signal that clusters send, once the first held-out prompt is sampled."""
    end = time.monotonic() + 300
    while not sampled(folder) and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)


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
    recipe = chosen(tiny_checkpoints["wan"], folder)
    watch = threading.Thread(target=stop_when_sampled, args=[folder])
    watch.start()
    assert not run(recipe)
    watch.join()
    before = sampled(folder)
    assert 0 < len(before) < NUM_PROMPTS
    assert not (folder / "evaluation/before.json").exists()

    assert run(recipe)
    after = sampled(folder)
    assert set(before) <= set(after)
    assert len(after) == len(set(after)) == 2 * NUM_PROMPTS, "nothing was sampled twice"
    summary = json.loads(RunFolder(folder).summary.read_text())
    assert summary["evaluation"]["num_prompts"] == NUM_PROMPTS
    videos = sorted(path.name for path in folder.glob("evaluation/before/*.mp4"))
    assert len(videos) == 2

"""A whole run, and the same run with everything dying that can: only the time may differ."""

from __future__ import annotations

import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
import torch
from ray.util.state import list_actors
from safetensors.torch import load_file
from torch import Tensor

from actors.assembly import Assembly, assemble
from actors.pool.state import PoolStats
from actors.store.media import fetch
from tests.ray.conftest import ROOT
from videorl.config import Recipe
from videorl.data.archive import check, committed_steps, read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.errors import ArchiveError, ResourceError
from videorl.loop import train
from videorl.policies import load_policy
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.types import Prompt, SampleRequest, WeightVersion

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

STEPS = 6
SETTINGS: dict[str, object] = {
    "num_steps": STEPS,
    "policy.lora.rank": 4,
    "sampling.num_inference_steps": 2,
    "prompts.per_round": 2,
    "prompts.candidates_per_prompt": 3,
    "optimizer.learning_rate": 1e-2,
    "reference.interval": 2,
    "generators.min_workers": 1,
    "generators.max_workers": 1,
    "checkpoint.interval": 2,
    "archive.latents": "true",
    "evaluation.source": "",
}
PROMPT, SEEDS = "a red square moving left", (11, 12)


def overrides(checkpoint: Path, run_dir: Path, **changes: object) -> list[str]:
    """Return `key=value` settings of a small run; `__` stands for a dot in a key."""
    changed = {name.replace("__", "."): value for name, value in changes.items()}
    places = {"policy.path": checkpoint, "run_dir": run_dir}
    return [f"{name}={value}" for name, value in {**SETTINGS, **places, **changed}.items()]


class Faults:
    """Keeps the metrics, and does harm after some steps."""

    def __init__(self, harm: Mapping[int, Callable[[], None]] | None = None) -> None:
        self.rows: list[dict[str, float]] = []
        self._harm = harm or {}

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step; the work of the next one is under way already."""
        self.rows.append(dict(metrics))
        if step in self._harm:
            self._harm[step]()


@dataclass(frozen=True)
class Finished:
    """What a run left."""

    folder: Path
    version: WeightVersion
    rows: list[dict[str, float]]
    generators: PoolStats
    scorers: PoolStats
    learner_starts: int
    latents: list[Tensor]
    """Of `PROMPT` and `SEEDS`, sampled by a generator from the last version."""


def run(recipe: Recipe, faults: Faults) -> Finished:
    """Train in this process, on the cluster of the session."""
    with open_run(recipe) as folder, assemble(recipe, folder, faults) as assembly:
        train(recipe, assembly.parts, assembly.progress, lambda: False)
        version = assembly.learner.newest()
        return Finished(
            folder.root,
            version,
            faults.rows,
            assembly.generator.pool.stats(),
            assembly.scorer.pools[0].stats(),
            assembly.learner.starts(),
            sample(assembly, version),
        )


def sample(assembly: Assembly, version: WeightVersion) -> list[Tensor]:
    request = SampleRequest(0, Prompt(0, PROMPT), SEEDS, version)
    group = assembly.generator.submit(request).result(60)
    assert {one.version for one in group.candidates} == {version}
    return fetch([one.latents for one in group.candidates])


def process_of(class_name: str) -> int:
    """Return the process of the only live actor of a class."""
    # Of this cluster: without an address, any other on the machine may answer.
    address = ray.get_runtime_context().gcs_address
    alive: Any = [("class_name", "=", class_name), ("state", "=", "ALIVE")]
    actors: list[Any] = list_actors(address, filters=alive)
    (actor,) = actors
    return actor.pid


def kill(class_name: str) -> Callable[[], None]:
    return lambda: os.kill(process_of(class_name), signal.SIGKILL)


def limit_files(class_name: str, num_bytes: int) -> Callable[[], None]:
    """Let an actor write no file beyond `num_bytes`, as if the disk were full then."""

    def limit() -> None:
        _, hard = resource.prlimit(process_of(class_name), resource.RLIMIT_FSIZE)
        resource.prlimit(process_of(class_name), resource.RLIMIT_FSIZE, (num_bytes, hard))

    return limit


def without_times(rows: list[dict[str, float]]) -> list[dict[str, float]]:
    return [
        {name: value for name, value in row.items() if not name.startswith("time/")} for row in rows
    ]


def assert_same_archive(found: Path, expected: Path) -> None:
    """Every candidate, score, pair and archived latent is the same, bit for bit."""
    assert check(found / "archive", STEPS) == []
    for name in SCHEMAS:
        table = read_table(found / "archive", name)
        assert table.equals(read_table(expected / "archive", name)), name


@pytest.fixture(scope="module")
def baseline(
    cluster: None, tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """The run without faults."""
    settings = overrides(tiny_checkpoints["wan"], tmp_path_factory.mktemp("baseline") / "run")
    return run(load_recipe("moving_shapes", settings), Faults())


def test_a_run_without_faults(baseline: Finished) -> None:
    assert baseline.rows[0]["learn/loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert [row["reference/version_step"] for row in baseline.rows] == [0, 2, 2, 4, 4, 6]
    assert {row["staleness/steps"] for row in baseline.rows} == {0}
    assert (baseline.generators.retried, baseline.learner_starts) == (0, 1)
    assert check(baseline.folder / "archive", STEPS) == []
    digests = read_table(baseline.folder / "archive", "candidates")["version_digest"].to_pylist()
    assert len(set(digests)) == STEPS


def test_the_learner_s_own_sample_is_the_generator_s(
    baseline: Finished, tiny_checkpoints: dict[str, Path]
) -> None:
    """A trainable policy in float32 with the learner's weights, against the published ones."""
    settings = overrides(tiny_checkpoints["wan"], baseline.folder)
    recipe = load_recipe("moving_shapes", settings)

    def load(part: str, trainable: bool) -> Any:
        parts, device = frozenset({part}), torch.device("cpu")
        return load_policy(
            recipe.policy, recipe.sampling, parts=parts, device=device, trainable=trainable
        )

    learner = load("transformer", trainable=True)
    checkpoint = baseline.folder / f"checkpoints/step-{STEPS:06d}"
    learner.load_weights(load_file(checkpoint / f"published-{STEPS}.safetensors"))
    embeds = load("text_encoder", trainable=False).encode([PROMPT, ""])
    latents_BCTHW = learner.sample(*embeds, SEEDS)
    torch.testing.assert_close(torch.stack(baseline.latents), latents_BCTHW, atol=1e-5, rtol=0)
    untrained_BCTHW = load("transformer", trainable=True).sample(*embeds, SEEDS)
    assert not torch.allclose(untrained_BCTHW, latents_BCTHW, atol=1e-3)


def test_killed_workers_cost_nothing_but_time(
    baseline: Finished, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    harm = {
        1: kill("GeneratorWorker"),
        2: kill("RewardWorker"),
        3: kill("TrainController"),
        4: kill("RayTrainWorker"),
    }
    settings = overrides(tiny_checkpoints["wan"], tmp_path / "run")
    found = run(load_recipe("moving_shapes", settings), Faults(harm))
    assert (found.generators.replaced, found.scorers.replaced) == (1, 1)
    assert found.learner_starts == 3
    assert found.version == baseline.version
    assert without_times(found.rows) == without_times(baseline.rows)
    assert_same_archive(found.folder, baseline.folder)


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


def wait_for(text: str, log: Path, driver: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 300
    while text not in log.read_text():
        assert driver.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.02)


def test_a_driver_that_is_killed_and_then_stopped_goes_on(
    baseline: Finished, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Three times the same command: `kill -9`, then SIGTERM, then the end."""
    folder = tmp_path / "run"
    settings = overrides(tiny_checkpoints["wan"], folder)

    killed = start_driver(settings, tmp_path / "killed.log")
    wait_for(f"step 3/{STEPS}", tmp_path / "killed.log", killed)
    # Two agents of Ray's own notice a minute late that they are alone; they touch no run folder.
    started = [
        one
        for one in psutil.Process(killed.pid).children(recursive=True)
        if not one.name().endswith("Agent")
    ]
    killed.kill()
    killed.wait(10)
    _, left = psutil.wait_procs(started, timeout=30)
    assert not left, "processes outlived the driver"

    stopped = start_driver(settings, tmp_path / "stopped.log")
    wait_for(f"step 3/{STEPS}", tmp_path / "stopped.log", stopped)
    stopped.send_signal(signal.SIGTERM)
    log = tmp_path / "stopped.log"
    assert stopped.wait(120) == 130, log.read_text()
    assert f"resumed after step 2/{STEPS}" in log.read_text()
    assert not (folder / "summary.json").exists()

    finished = start_driver(settings, tmp_path / "finished.log")
    assert finished.wait(300) == 0, (tmp_path / "finished.log").read_text()
    summary = json.loads((folder / "summary.json").read_text())
    last = {"step": baseline.version.step, "digest": baseline.version.digest}
    assert summary["policy_version"] == last
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(STEPS))
    assert_same_archive(folder, baseline.folder)


def test_a_full_disk_costs_a_checkpoint_but_an_archive_that_cannot_be_written_ends_the_run(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes: dict[str, object] = {"checkpoint__interval": 1, "policy__lora__rank": 0}
    settings = overrides(tiny_checkpoints["wan"], tmp_path / "run", **changes)
    faults = Faults(
        {
            0: limit_files("RayTrainWorker", 64 * 2**10),
            1: limit_files("RayTrainWorker", resource.RLIM_INFINITY),
            3: limit_files("ArchiveWriter", 500),
        }
    )
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(ArchiveError, match=r"step \d could not be written .* free some disk space"),
    ):
        run(load_recipe("moving_shapes", settings), faults)
    assert "checkpoint at step 1 could not be written, the last one is from step 0" in caplog.text
    assert "checkpoint at step 2 could not be written" not in caplog.text
    archived = committed_steps(tmp_path / "run/archive")
    assert len(archived) >= 3
    assert check(tmp_path / "run/archive", len(archived)) == []
    saved = sorted(path.name for path in (tmp_path / "run/checkpoints").iterdir())
    assert saved == ["step-000002", "step-000003"]


def test_a_gpu_that_the_cluster_lacks_is_refused_at_once(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    settings = overrides(tiny_checkpoints["wan"], tmp_path / "run", learner__num_gpus=64)
    recipe = load_recipe("moving_shapes", settings)
    with pytest.raises(ResourceError, match=r"learner x 1 with 0.5 CPU and 64 GPU"):
        run(recipe, Faults())

"""A whole run, and the same run with everything dying that can: only the time may differ."""

from __future__ import annotations

import logging
import math
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.util.state import list_actors
from safetensors.torch import load_file
from torch import Tensor

from actors.assembly import Assembly, assemble
from actors.pool.state import PoolStats
from actors.store.media import fetch
from tests.ray.whole_runs import STEPS, Baseline, Faults, assert_same_archive, overrides
from videorl.config import Recipe
from videorl.data.archive import check, committed_steps, read_table
from videorl.errors import ArchiveError, ResourceError
from videorl.loop import train
from videorl.policies import load_policy
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.types import Prompt, SampleRequest, WeightVersion

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

PROMPT, SEEDS = "a red square moving left", (11, 12)


@dataclass(frozen=True)
class Finished:
    """What a run on Ray left."""

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
    group = assembly.generator.submit(request).result(180)
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


@pytest.fixture(scope="module")
def killed(
    cluster: None, tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """A run of which every kind of worker was killed once."""
    harm = {
        1: kill("GeneratorWorker"),
        2: kill("RewardWorker"),
        3: kill("TrainController"),
        4: kill("RayTrainWorker"),
    }
    settings = overrides(tiny_checkpoints["wan"], tmp_path_factory.mktemp("killed") / "run")
    return run(load_recipe("moving_shapes", settings), Faults(harm))


def test_a_run_without_faults(baseline: Baseline) -> None:
    assert baseline.rows[0]["learn/loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert [row["reference/version_step"] for row in baseline.rows] == [0, 2, 2, 4, 4, 6]
    assert {row["staleness/steps"] for row in baseline.rows} == {0}
    assert check(baseline.folder / "archive", STEPS) == []
    digests = read_table(baseline.folder / "archive", "candidates")["version_digest"].to_pylist()
    assert len(set(digests)) == STEPS


def test_the_learner_s_own_sample_is_the_generator_s(
    killed: Finished, tiny_checkpoints: dict[str, Path]
) -> None:
    """A trainable policy in float32 with the learner's weights, against the published ones."""
    settings = overrides(tiny_checkpoints["wan"], killed.folder)
    recipe = load_recipe("moving_shapes", settings)

    def load(part: str, trainable: bool) -> Any:
        parts, device = frozenset({part}), torch.device("cpu")
        return load_policy(
            recipe.policy, recipe.sampling, parts=parts, device=device, trainable=trainable
        )

    learner = load("transformer", trainable=True)
    checkpoint = killed.folder / f"checkpoints/step-{STEPS:06d}"
    learner.load_weights(load_file(checkpoint / f"published-{STEPS}.safetensors"))
    embeds = load("text_encoder", trainable=False).encode([PROMPT, ""])
    latents_BCTHW = learner.sample(*embeds, SEEDS)
    torch.testing.assert_close(torch.stack(killed.latents), latents_BCTHW, atol=1e-5, rtol=0)
    untrained_BCTHW = load("transformer", trainable=True).sample(*embeds, SEEDS)
    assert not torch.allclose(untrained_BCTHW, latents_BCTHW, atol=1e-3)


def test_killed_workers_cost_nothing_but_time(baseline: Baseline, killed: Finished) -> None:
    assert (killed.generators.replaced, killed.scorers.replaced) == (1, 1)
    assert killed.learner_starts == 3
    assert killed.version == baseline.version
    assert without_times(killed.rows) == without_times(baseline.rows)
    assert_same_archive(killed.folder, baseline.folder)


@pytest.mark.long  # test_loop_failures.py and data/test_archive.py show both halves without Ray
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
    # Step 3 may have been written just before the fault: no checkpoint is ahead of the archive.
    assert saved == [f"step-{len(archived) - back:06d}" for back in (1, 0)]


def test_a_gpu_that_the_cluster_lacks_is_refused_at_once(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    settings = overrides(tiny_checkpoints["wan"], tmp_path / "run", learner__num_gpus=64)
    recipe = load_recipe("moving_shapes", settings)
    with pytest.raises(ResourceError, match=r"learner x 1 with 0.5 CPU and 64 GPU"):
        run(recipe, Faults())

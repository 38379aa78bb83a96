"""Without staleness, a cluster gives what one process gives, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.assembly import assemble
from actors.rehearsal import rehearse
from videorl.audit import audit
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.loop import train
from videorl.one_process import local_parts
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

STEPS = 4
SETTINGS = {
    "num_steps": STEPS,
    "policy.lora.rank": 4,
    "sampling.num_inference_steps": 2,
    "sampling.guidance_scale": 3,
    "prompts.per_round": 3,
    "prompts.candidates_per_prompt": 2,
    "rollouts.max_staleness": 0,
    "rollouts.canary_interval": 2,
    "rollouts.canary_tolerance": 1e-4,
    "optimizer.learning_rate": 1e-2,
    "reference.interval": 2,
    "generators.min_workers": 2,
    "generators.max_workers": 2,
    "learner.num_workers": 1,
    "checkpoint.interval": 2,
    "evaluation.source": "",
}


def recipe(checkpoint: Path, run_dir: Path) -> Recipe:
    places = {"policy.path": checkpoint, "run_dir": run_dir}
    overrides = [f"{name}={value}" for name, value in {**SETTINGS, **places}.items()]
    return load_recipe("moving_shapes", overrides)


def in_one_process(chosen: Recipe) -> RunFolder:
    with open_run(chosen) as folder:
        parts, progress, _ = local_parts(chosen, folder, JsonlSink(folder.metrics))
        train(chosen, parts, progress, lambda: False)
        return folder


def on_a_cluster(chosen: Recipe) -> RunFolder:
    with (
        open_run(chosen) as folder,
        assemble(chosen, folder, JsonlSink(folder.metrics)) as assembly,
    ):
        rehearse(chosen, folder, assembly)
        train(chosen, assembly.parts, assembly.progress, lambda: False)
        return folder


def counted(folder: RunFolder) -> list[dict[str, float]]:
    """Return the metrics that are not times."""
    rows = read_metrics(folder.metrics)
    return [{name: row[name] for name in row if not name.startswith("time/")} for row in rows]


def test_two_generators_and_a_learner_rank_give_what_one_process_gives(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    local = in_one_process(recipe(tiny_checkpoints["wan"], tmp_path / "local"))
    rehearsed = recipe(tiny_checkpoints["wan"], tmp_path / "remote")
    rehearsed.rehearsal = "always"
    remote = on_a_cluster(rehearsed)
    assert json.loads(remote.rehearsal.read_text()).keys() == {
        "generator",
        "rewards",
        "learner",
        "checkpoint",
    }
    published = read_table(local.archive, "steps")["published_digest"].to_pylist()
    assert len(set(published)) == STEPS, "every step changed the weights"
    for name in SCHEMAS:
        columns = [column for column in SCHEMAS[name].names if column != "video"]
        tables = [read_table(folder.archive, name, columns) for folder in (local, remote)]
        assert tables[0].equals(tables[1]), name
    assert counted(local) == counted(remote)
    assert [row["step"] for row in counted(remote) if "canary/difference" in row] == [0, 2]
    for folder in (local, remote):
        found = audit(folder)
        assert found.is_clean, found

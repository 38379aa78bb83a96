"""Without staleness, a cluster gives what one process gives, bit for bit.

Here with CogVideoX; the runs of `test_run_faults.py` show it with Wan.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.assembly import assemble
from actors.rehearsal import rehearse
from tests.small_runs import small_recipe
from videorl.audit import audit
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.loop import train
from videorl.one_process import local_parts
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

STEPS = 4
SETTINGS = {
    "num_steps": STEPS,
    "sampling.guidance_scale": 3,
    "prompts.per_round": 3,
    "prompts.candidates_per_prompt": 2,
    "sampling.merge_lora": False,  # a process that trains does not, which is another rounding
    "rollouts.max_staleness": 0,
    "rollouts.canary_interval": 2,
    "rollouts.canary_tolerance": 1e-4,
    "optimizer.learning_rate": 1e-2,
    "reference.interval": 2,
    "generators.min_workers": 2,
    "generators.max_workers": 2,
    "generators.candidates_per_request": 1,
    "learner.updates_per_round": 2,
    "learner.loss_over": "planned",
    "checkpoint.interval": 2,
}


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
    alone, rehearsed = (
        small_recipe("cogvideox_2b", tiny_checkpoints, tmp_path / name, SETTINGS)
        for name in ("local", "remote")
    )
    local = in_one_process(alone)
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

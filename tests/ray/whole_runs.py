"""A small whole run, for tests that disturb it on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from videorl.data.archive import check, read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.loop import train
from videorl.one_process import local_parts
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.run.sinks import read_metrics
from videorl.types import WeightVersion

STEPS = 6
SETTINGS: dict[str, object] = {
    "num_steps": STEPS,
    "policy.lora.rank": 4,
    "policy.dtype": "float32",  # as commands resolve it: kept evaluations are known by it
    "sampling.num_inference_steps": 2,
    # One process does not merge: its generator is its learner. So it would equal this to rounding.
    "sampling.merge_lora": "false",
    "prompts.per_round": 2,
    "prompts.candidates_per_prompt": 3,
    "objective.sft_weight": 0,
    "optimizer.learning_rate": 1e-2,
    "reference.interval": 2,
    "rollouts.max_staleness": 0,
    "generators.min_workers": 1,
    "generators.max_workers": 1,
    "checkpoint.interval": 2,
    "archive.latents": "true",
    "evaluation.source": "",
}


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


def assert_same_archive(found: Path, expected: Path) -> None:
    """Every candidate, score, pair and archived latent is the same, bit for bit."""
    assert check(found / "archive", STEPS) == []
    for name in SCHEMAS:
        # Where a video lies depends on who writes it.
        columns = [column for column in SCHEMAS[name].names if column != "video"]
        tables = [read_table(folder / "archive", name, columns) for folder in (found, expected)]
        assert tables[0].equals(tables[1]), name


def losses_of(folder: Path) -> list[float]:
    """Return the loss of every step of a run."""
    return [row["learn/loss"] for row in read_metrics(folder / "metrics.jsonl")]


def assert_same_run(found: Path, expected: Path) -> None:
    """Archive, losses and exported weights are the same, bit for bit."""
    assert_same_archive(found, expected)
    assert losses_of(found) == losses_of(expected)
    name = "aligned/pytorch_lora_weights.safetensors"  # its metadata come in any order
    exported = [load_file(folder / name) for folder in (found, expected)]
    assert exported[0].keys() == exported[1].keys()
    assert all(torch.equal(weight, exported[1][key]) for key, weight in exported[0].items())


@dataclass(frozen=True)
class Baseline:
    """What the run without faults left."""

    folder: Path
    version: WeightVersion
    rows: list[dict[str, float]]


def baseline_run(checkpoint: Path, folder: Path) -> Baseline:
    """Run without faults in one process: on a cluster the run has the same numbers.

    So `test_single_process.py` shows, and so must the runs with faults.
    """
    settings = overrides(checkpoint, folder)
    recipe, sink = load_recipe("moving_shapes", settings), Faults()
    with open_run(recipe) as opened:
        parts, progress, learner = local_parts(recipe, opened, sink)
        with closing(learner):
            ended = train(recipe, parts, progress, lambda: False)
    return Baseline(folder, ended.versions[-1], sink.rows)

"""The methods of the papers' tables, each trained on Moving Shapes and kept as an adapter."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from videorl.ablation.plan import Run, arm_run
from videorl.ablation.runs import trainer
from videorl.ablation.studies import LEARNED, LOW_RATE, Arm
from videorl.files import write_json
from videorl.run.folder import open_run

METHODS: Mapping[str, Arm] = {
    "SFT": Arm({"objective.name": "sft", **LOW_RATE}, LEARNED),
    "RWR": Arm({"objective.name": "flow_rwr", **LOW_RATE}, LEARNED),
    "offline DPO": Arm(recipe=LEARNED, pairs="stored"),
    "online DPO": Arm(recipe=LEARNED),
    "ReFL": Arm(LOW_RATE, "moving_shapes_refl"),
}
"""Label -> how it trains. All follow the shipped learned reward, as the papers follow learned ones;
the low rate of SFT, RWR and ReFL is that at which the ablations found them not to break."""
FACTS = "trained.json"


def method_run(label: str, seed: int, steps: int) -> Run:
    """Return the training run of a method with a seed."""
    return arm_run(label, METHODS[label], seed, steps, ())


def adapter_folder(root: Path, run: Run) -> Path:
    """Return where `train_method` puts the adapter of a run."""
    return root / "adapters" / f"{run.label.replace(' ', '_')}-{run.recipe.seed}-{run.digest[:12]}"


def train_method(run: Run, root: Path) -> dict[str, Any]:
    """Train, and keep nothing but the adapter; a run that was cut off goes on.

    Args:
        run: See `method_run`.
        root: Gets `runs/` while it trains, and `adapters/`.

    Returns:
        What is known of the run, which lies beside the adapter too.
    """
    import torch

    torch.set_num_threads(1)
    target = adapter_folder(root, run)
    started = time.process_time()
    recipe = replace(run.recipe, run_dir=str(root / "runs" / target.name))
    with (
        open_run(recipe) as folder,
        (folder.root / "log.txt").open("a") as log,
        contextlib.redirect_stderr(log),
    ):
        trainer(run)(recipe, folder)
        facts = {
            "method": run.label,
            "seed": run.recipe.seed,
            "steps": recipe.num_steps,
            "settings": run.settings,
            "cpu_seconds": round(time.process_time() - started, 1),
        }
        partial = target.with_name(f".partial-{target.name}")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(folder.export, partial)
        write_json(partial / FACTS, facts)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)
    shutil.rmtree(folder.root)
    return facts

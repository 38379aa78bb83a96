"""One rank of a group that fine-tunes every weight of a tiny Wan in shards: a program for tests.

Usage: `python -m tests.full_ranks RANK WORLD_SIZE FOLDER`. `FOLDER/wan` is the model. Rank 0 writes
checkpoint and export to `FOLDER/ranks`, and `FOLDER/found.json`. A process of its own, since ZeRO 3
patches PyTorch for good.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.groups import random_pair
from tests.tiny import TINY, tiny_policy, tiny_sampling
from videorl.config import Recipe
from videorl.learning.build import build_learner
from videorl.learning.learner import Learner
from videorl.objectives.dpo import FlowDPO
from videorl.types import LearnerOutput


def recipe_of(checkpoint: Path, folder: Path) -> Recipe:
    """Return a recipe whose steps have one pair per rank of two, in bfloat16."""
    recipe = Recipe(name="full", num_steps=3, run_dir=str(folder))
    recipe.policy = tiny_policy(checkpoint, rank=0)
    recipe.policy.dtype = "bfloat16"
    recipe.sampling = tiny_sampling()
    recipe.objective = FlowDPO(beta=100.0, timesteps_per_pair=1)
    recipe.learner.micro_batch_size = 2
    recipe.learner.zero_stage = 3
    recipe.checkpoint.location = str(folder / "checkpoints")
    return recipe


def two_steps(learner: Learner) -> list[LearnerOutput]:
    """Take a step, make its result the reference, save, and take another."""
    first = step(learner, 0)
    learner.update_reference(first.version)
    learner.save({}).result()
    return [first, step(learner, 1)]


def step(learner: Learner, number: int) -> LearnerOutput:
    """Take a step with two pairs."""
    pairs = [random_pair(10 * number + one, TINY["wan"].latents, 16) for one in range(2)]
    return learner.step(number, pairs)


def main(rank: int, world_size: int, folder: Path) -> None:
    """Take two steps, export, and take the second again from the checkpoint."""
    from videorl.learning.engines.deepspeed import DeepSpeedEngine

    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    recipe = recipe_of(folder / "wan", folder / "ranks")
    recipe.checkpoint.sharded = True
    engine = partial(DeepSpeedEngine, config=recipe.optimizer, zero_stage=3, micro_batch_size=2)

    def built() -> tuple[Learner, Any]:
        device = torch.device("cpu")
        return build_learner(recipe, folder / "ranks", engine, device=device, in_shards=True)

    learner, policy = built()
    learner.start()
    outputs = two_steps(learner)
    torch.distributed.barrier()
    learner.export(folder / "ranks/export")
    share = {
        role: [sum(p.ds_tensor.numel() for p in policy.live(role)), len(policy.live(role))]
        for role in ("policy", "reference")
    }
    restored, _ = built()
    versions = [restored.start()[0], step(restored, 1).version]
    if rank == 0:
        found = {
            "metrics": [dict(output.metrics) for output in outputs],
            "digests": [output.version.digest for output in outputs],
            "restored": [version.digest for version in versions],
            "share": share,
        }
        (folder / "found.json").write_text(json.dumps(found))
    # A rank that leaves early takes its end of every connection along.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

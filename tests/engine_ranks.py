"""One rank of a group that runs the tiny learner on every ZeRO stage: a program for tests.

Usage: `python -m tests.engine_ranks RANK WORLD_SIZE FOLDER [OTHER]`. Rank 0 writes
`FOLDER/found.json`: stage -> metrics and digests of a rehearsed run of 4 steps, and digests of runs
that were restored after 2, from a checkpoint of rank 0 and from one in slices; and, given the
folder of a group of another size, metrics of runs that go on from that group's two checkpoints of
the next ZeRO stage.
Other ranks write `apart-RANK.txt`, the error of a rehearsal in which they do not see what rank 0
wrote. A process of its own, since ZeRO 3 patches PyTorch for good.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.learners import run_steps, tiny_learner, tiny_pairs, tiny_recipe
from videorl.config import Recipe
from videorl.errors import CheckpointError
from videorl.learning.learner import Learner

STAGES = (0, 1, 2, 3)


def recipe_of(stage: int, videos: int = 4) -> Recipe:
    """Return the recipe: 9 pair-times a step, so that some ranks get padding.

    Args:
        stage: ZeRO stage.
        videos: Per forward: 4 = two pairs, 1 = the videos of a pair one after the other.
    """
    recipe = tiny_recipe(micro_batch_size=videos, max_staleness=1)
    recipe.learner.zero_stage = stage
    return recipe


def learner_on(
    stage: int, folder: Path, videos: int = 1, *, sharded: bool = False
) -> tuple[Learner, Any]:
    """Return a learner on DeepSpeed, and its policy."""
    from videorl.learning.engines.deepspeed import DeepSpeedEngine

    recipe = recipe_of(stage, videos)
    recipe.optimizer.fused = stage in (1, 3)
    recipe.checkpoint.sharded = sharded

    def engine(module: torch.nn.Module) -> DeepSpeedEngine:
        # The base of an adapter: sharded, but neither published nor saved.
        module.add_module("frozen", torch.nn.Linear(64, 64).requires_grad_(False))
        return DeepSpeedEngine(module, recipe.optimizer, zero_stage=stage, micro_batch_size=2)

    return tiny_learner(recipe, folder, engine)


def count_gathered() -> list[int]:
    """Return a list to which ZeRO 3 adds how many numbers it makes whole, at each time."""
    import deepspeed

    class Counted(deepspeed.zero.GatheredParameters):
        def __init__(self, params: Any, **options: Any) -> None:
            counts.append(sum(getattr(parameter, "ds_numel", 0) for parameter in params))
            super().__init__(params, **options)

    counts: list[int] = []
    deepspeed.zero.GatheredParameters = Counted
    return counts


def run_from(stage: int, folder: Path, videos: int = 1) -> tuple[list[Any], Any]:
    """Restore what was saved after two steps, and take two more; return versions and metrics."""
    learner, _ = learner_on(stage, folder, videos)
    version, loop_state = learner.start()
    outputs = run_steps(learner, 2, 4)
    digests = [version.digest, *(output.version.digest for output in outputs)]
    return [digests, [dict(output.metrics) for output in outputs]], loop_state


def rehearse_apart(rank: int, folder: Path) -> None:
    """Rehearse a checkpoint in a folder of each rank's own, as on nodes without a shared disk."""
    learner, _ = learner_on(0, folder / f"apart-{rank}")
    learner.start()
    try:
        learner.rehearse_checkpoint()
    except CheckpointError as error:
        (folder / f"apart-{rank}.txt").write_text(str(error))
        torch.distributed.all_reduce(torch.zeros(1))  # rank 0 waits for all, in vain elsewhere


def main(rank: int, world_size: int, folder: Path, other: Path | None = None) -> None:
    """Run all stages one after the other."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size
    )
    found: dict[str, Any] = {}
    rehearse_apart(rank, folder)
    for stage in STAGES:
        in_slices, _ = learner_on(stage, folder / f"slices-{stage}", sharded=True)
        in_slices.start()
        in_slices.rehearse_checkpoint()
        run_steps(in_slices, 0, 2)
        in_slices.save({"step": 2}).result()
        learner, policy = learner_on(stage, folder / f"stage-{stage}")
        gathered = count_gathered()
        learner.start()
        learner.rehearse_step(tiny_pairs(0))
        learner.rehearse_checkpoint()
        outputs = run_steps(learner, 0, 2)
        learner.save({"step": 2}).result()
        torch.distributed.barrier()
        outputs += run_steps(learner, 2, 4)
        held = [getattr(p, "ds_tensor", p).numel() for p in policy.reference.parameters()]
        kept = {"trained": sum(p.numel() for p in policy.base.parameters()), "reference": sum(held)}
        kept |= {
            "gathered": max(gathered, default=0),
            "copies": len(learner.published(outputs[-1].version)),
        }
        restored, loop_state = run_from(stage, folder / f"stage-{stage}")
        from_slices, _ = run_from(stage, folder / f"slices-{stage}")
        resized: list[Any] = []
        if other is not None:
            for kind in ("stage", "slices"):
                found_there, _ = run_from(stage, other / f"{kind}-{(stage + 1) % 4}", videos=4)
                resized.append(found_there[1])
        # Not a test's place, but the other ranks leave nothing else behind.
        assert (kept["copies"] > 0) == (rank == 0), kept
        if rank == 0:
            save_file(dict(learner.published(outputs[-1].version)), folder / f"{stage}.safetensors")
            found[str(stage)] = {
                "metrics": [dict(output.metrics) for output in outputs],
                "digests": [output.version.digest for output in outputs],
                "restored": [restored[0], from_slices[0]],
                "loop_state": loop_state,
                "kept": kept,
                "resized": resized,
            }
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    # A rank that leaves early takes its end of every connection along.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *map(Path, sys.argv[3:]))

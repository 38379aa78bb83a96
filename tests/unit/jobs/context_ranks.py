"""Four ranks on the CPU that share videos by two and by four: a program for tests.

Usage: `python -m tests.unit.jobs.context_ranks FOLDER`. It writes `FOLDER/found.json`: case ->
degree -> the numbers of `jobs.bench.context_parallel.differences`; and `learner`: degree -> the
metrics of two steps of a DeepSpeed learner, those of `LocalEngine`, and how far the weights differ.
`refused` is what ring attention says where its kernel is missing, as on every CPU; `wan_ring` is
diffusers' ring attention with PyTorch's own flash kernel for CPUs in the place of that for GPUs.
It imports the models once and forks, which pytest cannot do after it has gone backward.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.multiprocessing.spawn import start_processes

from jobs.bench.context_parallel import differences, measure, noisy_policy
from tests.families.ltx_video import save_tiny_ltx_video
from tests.groups import random_pair
from tests.tiny import save_tiny_cogvideox, tiny_policy, tiny_sampling
from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.learning.build import build_learner
from videorl.learning.engines.deepspeed import DeepSpeedEngine
from videorl.learning.engines.local import LocalEngine
from videorl.learning.learner import Learner
from videorl.objectives.dpo import FlowDPO
from videorl.policies import loading
from videorl.policies.parallel import share_videos
from videorl.pretraining.checkpoint import build_components, save_checkpoint
from videorl.settings.model import PolicyConfig

CPU = torch.device("cpu")
NUM_RANKS = 4
DEGREES = (2, 4)


def recipes(folder: Path) -> dict[str, Recipe]:
    """Write tiny checkpoints with four heads; return case -> recipe."""
    assert loading  # imported before ranks are forked
    wan, rotary, absolute = folder / "wan", folder / "rotary", folder / "absolute"
    components = build_components(0, width=128, layers=2, vae_width=16, text_width=16)
    save_checkpoint(components, wan, torch.float32)
    for path, is_5b in ((rotary, True), (absolute, False)):
        save_tiny_cogvideox(path, is_5b=is_5b, num_attention_heads=4, num_layers=2)
    ltx_video = save_tiny_ltx_video(folder / "ltx_video", heads=4, num_layers=2)
    three_heads = folder / "three_heads"  # which neither two nor four processes can divide
    save_checkpoint(
        build_components(0, width=96, layers=2, vae_width=16, text_width=16),
        three_heads,
        torch.float32,
    )
    ring = replace(
        tiny_policy(three_heads), context_parallel="ring", attention_backend="_native_flash"
    )
    return {
        "wan_ring": _recipe(ring, checkpointing=True),
        "ltx_video_lora": _recipe(tiny_policy(ltx_video, "ltx_video")),
        "wan_lora": _recipe(tiny_policy(wan)),
        "wan_full": _recipe(tiny_policy(wan, rank=0), checkpointing=True),
        "rotary_lora": _recipe(tiny_policy(rotary, "cogvideox"), checkpointing=True),
        "absolute_full": _recipe(tiny_policy(absolute, "cogvideox", rank=0)),
    }


def _recipe(policy: PolicyConfig, *, checkpointing: bool = False) -> Recipe:
    policy = replace(policy, gradient_checkpointing=checkpointing)
    objective = FlowDPO(beta=20.0, timesteps_per_pair=1)
    sampling = tiny_sampling(policy.family, num_inference_steps=2)
    return Recipe(name="tiny", policy=policy, sampling=sampling, objective=objective)


def run(rank: int, folder: Path, cases: dict[str, Recipe]) -> None:
    """Do everything on one rank; the first one compares and writes."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": str(rank)}
    distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous", rank=rank, world_size=NUM_RANKS
    )
    found: dict[str, Any] = {"refused": refusal(cases["wan_ring"])}
    kernels = flash_kernels_for_cpus()
    for name, recipe in cases.items():
        alone = measure(recipe, noisy_policy(recipe, CPU), CPU, memory=False) if not rank else None
        for degree in DEGREES:
            policy = noisy_policy(recipe, CPU)
            share_videos(policy, recipe.policy, degree)
            shared = measure(recipe, policy, CPU, memory=False)
            for gradient in shared.gradient.values():
                distributed.all_reduce(gradient)
                gradient *= degree / NUM_RANKS  # each group has found it once
            if alone is not None:
                found.setdefault(name, {})[degree] = differences(alone, shared)
    found["learner"] = {
        degree: learn(cases["wan_lora"], folder / str(degree), rank, degree) for degree in DEGREES
    }
    del kernels  # were registered as long as this lived
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(found))
    distributed.barrier()
    distributed.destroy_process_group()


def refusal(recipe: Recipe) -> str:
    """Return why videos cannot be shared in a ring here; empty = they can."""
    try:
        share_videos(noisy_policy(recipe, CPU), recipe.policy, 2)
    except ConfigError as error:
        return str(error)
    return ""


def flash_kernels_for_cpus() -> torch.library.Library:
    """Give the operators behind `_native_flash`, which exist for GPUs alone, kernels for CPUs."""
    library, cpu = torch.library.Library("aten", "IMPL"), torch.ops.aten
    none = torch.zeros((), dtype=torch.int64)

    def forward(*qkv: Any, scale: float | None = None, **_: Any) -> tuple[Any, ...]:
        out, lse = cpu._scaled_dot_product_flash_attention_for_cpu(*qkv[:3], scale=scale)
        return out, lse, none, none, 0, 0, none, none, none

    def backward(*given: Any, scale: float | None = None, **_: Any) -> Any:
        gradient = cpu._scaled_dot_product_flash_attention_for_cpu_backward
        return gradient(*given[:6], 0.0, False, scale=scale)

    name = "_scaled_dot_product_flash_attention"
    library.impl(name, forward, "CPU")
    library.impl(f"{name}_backward", backward, "CPU")
    return library


def learn(recipe: Recipe, folder: Path, rank: int, degree: int) -> dict[str, Any]:
    """Take two steps of three pairs, so that with two groups there is padding."""
    shared = replace(recipe.learner, context_parallel=degree, micro_batch_size=2)
    recipe = replace(recipe, learner=shared)
    deepspeed = partial(DeepSpeedEngine, config=recipe.optimizer, zero_stage=1, micro_batch_size=2)
    learner, policy = build_learner(recipe, folder, deepspeed, device=CPU)
    metrics = _steps(learner)
    if rank:
        return {}
    alone = replace(recipe, learner=replace(shared, context_parallel=1))
    local = partial(LocalEngine, config=recipe.optimizer)
    other, wanted = build_learner(alone, folder / "alone", local, device=CPU)
    expected, weights = _steps(other), policy.weights()
    distance = max(float((weights[name] - w).abs().max()) for name, w in wanted.weights().items())
    return {"metrics": metrics, "expected": expected, "weights": distance}


def _steps(learner: Learner) -> list[dict[str, float]]:
    learner.start()
    pairs = [random_pair(index, (12, 3, 4, 4), 16) for index in range(3)]
    outputs = [learner.step(step, pairs) for step in range(2)]
    return [dict(asdict(output)["metrics"]) for output in outputs]


if __name__ == "__main__":
    torch.set_num_threads(1)
    where = Path(sys.argv[1])
    start_processes(run, (where, recipes(where)), nprocs=NUM_RANKS, start_method="fork")

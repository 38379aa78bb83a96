"""A step that fine-tunes every weight of each family, whole and in ZeRO-3 shards: a program.

Usage: `python -m tests.family_shards FOLDER`. It writes `FOLDER/found.json`: of each family, loss
and norm of the gradient, whole and in shards. A process of its own, as ZeRO 3 patches PyTorch for
good.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tests.full_ranks import recipe_of
from tests.groups import random_pair
from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
from videorl.config import Recipe
from videorl.learning.build import build_learner
from videorl.learning.engines.local import LocalEngine
from videorl.policies import load_policy
from videorl.types import PreferencePair


def recipe_for(family: str, folder: Path, run: str) -> Recipe:
    """Return a recipe of a step in bfloat16."""
    recipe = recipe_of(folder / family, folder / run / family)
    recipe.policy = tiny_policy(folder / family, family, rank=0)
    recipe.policy.dtype = "bfloat16"
    recipe.sampling = tiny_sampling(family)
    return recipe


def pairs_of(family: str, recipe: Recipe) -> list[PreferencePair]:
    """Return two pairs of random latents with encoded prompts."""
    encoder = load_policy(recipe.policy, recipe.sampling, parts=frozenset({"text_encoder"}))
    embeds = encode(encoder, ["a red circle", "blue"])
    pairs = [random_pair(number, TINY[family].latents, 16) for number in range(2)]
    return [replace(pair, prompt_embeds=e) for pair, e in zip(pairs, embeds, strict=True)]


def step(
    recipe: Recipe, pairs: Sequence[PreferencePair], engine: Callable[..., Any], *, in_shards: bool
) -> list[float]:
    """Return loss and norm of the gradient of a step."""
    device, folder = torch.device("cpu"), Path(recipe.run_dir)
    learner, _ = build_learner(recipe, folder, engine, device=device, in_shards=in_shards)
    learner.start()
    metrics = learner.step(0, pairs).metrics
    return [metrics["learn/loss"], metrics["optimizer/grad_norm"]]


def main(folder: Path) -> None:
    """Take all whole steps first: what follows them is patched."""
    os.environ |= {"DS_ACCELERATOR": "cpu", "LOCAL_RANK": "0"}
    torch.set_num_threads(1)
    place = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=place, rank=0, world_size=1)
    given, found = dict[str, list[PreferencePair]](), dict[str, list[list[float]]]()
    for family, tiny in TINY.items():
        tiny.save(folder / family)
        recipe = recipe_for(family, folder, "whole")
        given[family] = pairs_of(family, recipe)
        engine: Any = partial(LocalEngine, config=recipe.optimizer)
        found[family] = [step(recipe, given[family], engine, in_shards=False)]

    from videorl.learning.engines.deepspeed import DeepSpeedEngine

    for family, pairs in given.items():
        recipe = recipe_for(family, folder, "shards")
        engine = partial(DeepSpeedEngine, config=recipe.optimizer, zero_stage=3, micro_batch_size=2)
        found[family].append(step(recipe, pairs, engine, in_shards=True))
    (folder / "found.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Policies on a GPU: bfloat16 sampling, a step under DeepSpeed, proven delivery."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from tests.groups import random_pair
from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
from videorl.config import OptimizerConfig, Recipe
from videorl.learning.build import build_learner
from videorl.objectives.dpo import FlowDPO
from videorl.policies import load_policy
from videorl.protocols import Policy
from videorl.sampling.sampler import CandidateSampler
from videorl.types import Prompt, SampleRequest

pytestmark = pytest.mark.gpu

PROMPT = "a red square moving left"
CUDA = torch.device("cuda", 0)


@pytest.fixture
def nccl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of one rank."""
    monkeypatch.setenv("LOCAL_RANK", "0")  # DeepSpeed asks for it; Ray Train sets it in a run
    store = f"file://{tmp_path / 'store'}"
    torch.distributed.init_process_group("nccl", init_method=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(params=sorted(TINY))
def recipe(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> Recipe:
    """A recipe on a tiny checkpoint; its policy computes in bfloat16 on a GPU."""
    recipe = Recipe(name="tiny", num_steps=1)
    recipe.policy = tiny_policy(tiny_checkpoints[request.param], request.param)
    recipe.sampling = tiny_sampling(request.param)
    recipe.objective = FlowDPO(beta=100.0, timesteps_per_pair=2)
    recipe.optimizer = OptimizerConfig(learning_rate=1e-2)
    return recipe


def load(recipe: Recipe, *parts: str, trainable: bool = False) -> Policy:
    return load_policy(
        recipe.policy, recipe.sampling, parts=frozenset(parts), device=CUDA, trainable=trainable
    )


def test_a_seed_gives_the_same_bfloat16_sample_again(recipe: Recipe) -> None:
    policy = load(recipe, "transformer", "vae", "text_encoder")
    prompt, negative = encode(policy, [PROMPT, ""])
    assert {one.dtype for one in policy.weights().values()} == {torch.bfloat16}
    latents, again = (policy.sample(prompt, negative, [1, 2]) for _ in range(2))
    assert latents.isfinite().all()
    assert torch.equal(latents, again)
    (video, _) = policy.decode(latents)
    assert video.frames.shape == (5, 16, 16, 3)


@pytest.mark.usefixtures("nccl")
def test_a_learner_step_reaches_a_generator_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    from videorl.learning.engines.deepspeed import DeepSpeedEngine

    torch.cuda.reset_peak_memory_stats()
    make_engine = partial(
        DeepSpeedEngine, config=recipe.optimizer, zero_stage=1, micro_batch_size=4
    )
    recipe.checkpoint.location = str(tmp_path / "checkpoints")
    device = torch.device("cuda")
    learner, _ = build_learner(recipe, tmp_path, make_engine, device=device)
    first, _ = learner.start()
    shape = TINY[recipe.policy.family].latents
    encoder = load(recipe, "text_encoder")
    prompt, negative = encode(encoder, [PROMPT, ""])
    pairs = [random_pair(index, shape, 16) for index in range(3)]
    output = learner.step(0, [replace(pair, prompt_embeds=prompt) for pair in pairs])
    assert output.metrics["learn/loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert output.version.digest != first.digest
    sampler = CandidateSampler(load(recipe, "transformer", "vae"))
    sampler.load(output.version, learner.published(output.version))  # raises if a digest differs
    request = SampleRequest(0, Prompt(0, PROMPT), (1,), output.version)
    (latents,), _, _ = sampler.sample(request, prompt, negative)
    assert latents.isfinite().all()
    print(f"peak GPU memory: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")

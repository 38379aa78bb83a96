"""A model published in float16 samples in it, from what a learner in bfloat16 publishes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from torch import Tensor

from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import PolicyConfig
from videorl.embedding import plain
from videorl.policies import load_policy
from videorl.protocols import DifferentiablePolicy
from videorl.sampling.canary import difference
from videorl.weights import digest

TRANSFORMER = frozenset({"transformer"})
EMBEDS = [plain(x) for x in torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(0))]


@pytest.fixture(scope="module")
def published(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CogVideoX in float16, as 2B is."""
    folder = tmp_path_factory.mktemp("float16")
    pipeline = DiffusionPipeline.from_pretrained(tiny_checkpoints["cogvideox"], dtype=torch.float16)
    pipeline.save_pretrained(folder)
    return folder


def load(
    folder: Path, dtype: str, half: str = "float16", *, rank: int = 4, trainable: bool = False
) -> DifferentiablePolicy:
    config: PolicyConfig = tiny_policy(folder, "cogvideox", rank=rank)
    config.dtype = dtype
    sampling = tiny_sampling(half_precision=half)
    return load_policy(config, sampling, parts=TRANSFORMER, trainable=trainable)


def sampled(policy: DifferentiablePolicy) -> Tensor:
    return policy.sample(EMBEDS[0], EMBEDS[1], [0, 1])


@pytest.mark.parametrize("rank", [0, 4])
def test_what_a_bfloat16_learner_publishes_arrives_bit_for_bit(published: Path, rank: int) -> None:
    learner = load(published, "bfloat16", rank=rank, trainable=True)
    generator = load(published, "bfloat16", rank=rank)
    assert {tensor.dtype for tensor in generator.weights().values()} == {torch.float16}
    if rank == 0:
        assert digest(learner.weights()) == digest(generator.weights()), "nothing is rounded"
    with torch.no_grad():
        for parameter in learner.trainable_module().parameters():
            if parameter.requires_grad:
                parameter += 0.01
    weights = learner.weights()
    generator.load_weights(weights)
    assert digest(generator.weights()) == digest(weights)
    assert 0 < difference(sampled(generator), sampled(learner)) < 0.05
    learner.update_reference()
    x_t, t = torch.randn(1, 4, 3, 4, 4), torch.tensor([0.5])
    both = [learner.predict(x_t, t, [EMBEDS[0]], role) for role in ("policy", "reference")]
    assert torch.equal(*both), "the roles round alike"


def test_float16_is_nearer_to_float32_than_bfloat16(published: Path) -> None:
    exact = sampled(load(published, "float32"))
    far = difference(sampled(load(published, "bfloat16", "bfloat16")), exact)
    near = difference(sampled(load(published, "bfloat16", "float16")), exact)
    assert 0 < near < far / 4, (near, far)


def test_only_half_precision_is_replaced(published: Path) -> None:
    policy = load(published, "float32", "float16")
    assert {tensor.dtype for tensor in policy.weights().values()} == {torch.float32}

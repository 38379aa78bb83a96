"""Guided sampling through the stock pipelines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import CogVideoXDPMScheduler, UniPCMultistepScheduler
from torch import Tensor

from tests.families.wan_i2v import save_tiny_wan_i2v
from tests.tiny import encode, tiny_policy, tiny_sampling
from tests.unit.guidance.test_latent_reward import build, change_weights
from videorl.config import PolicyConfig
from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.guidance.latent_reward import LatentReward
from videorl.guidance.sampler import GuidedSampler
from videorl.policies import FAMILIES, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.pipeline_policy import PipelinePolicy

SEEDS = [11, 12]
SOLVERS = {"wan": UniPCMultistepScheduler, "cogvideox": CogVideoXDPMScheduler}
"""Solvers that the tiny checkpoints do not name: one looks back, one takes other arguments."""


@pytest.fixture(params=sorted(FAMILIES))
def config(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> PolicyConfig:
    return tiny_policy(tiny_checkpoints[request.param], request.param)


def load(config: PolicyConfig) -> tuple[PipelinePolicy, Embedding, Embedding]:
    policy = load_policy(config, tiny_sampling(config.family, guidance_scale=2.0), parts=PARTS)
    assert isinstance(policy, PipelinePolicy)
    prompt, negative = encode(policy, ["a red circle moving left", ""])
    return policy, prompt, negative


def trained(config: PolicyConfig) -> LatentReward:
    reward = build(config)
    change_weights(reward)
    return reward.requires_grad_(False)


def test_weights_of_0_are_the_stock_sampler_bit_for_bit(config: PolicyConfig) -> None:
    policy, prompt, negative = load(config)
    expected = policy.sample(prompt, negative, SEEDS)
    reward = trained(config)
    for weights in ({}, {"sharp": 0.0, "steady": 0.0}):
        found = GuidedSampler(policy, reward, weights).sample(prompt, negative, SEEDS)
        assert torch.equal(found, expected)
    GuidedSampler(policy, reward, {"sharp": 1.0}).sample(prompt, negative, SEEDS)
    assert torch.equal(policy.sample(prompt, negative, SEEDS), expected)


def test_a_weight_moves_its_dimension_in_its_direction(config: PolicyConfig) -> None:
    policy, prompt, negative = load(config)
    reward = trained(config)
    rewards = []
    for weight in (-0.5, 0.0, 0.5):
        sampler = GuidedSampler(policy, reward, {"steady": weight})
        latents_BCTHW = sampler.sample(prompt, negative, SEEDS)
        assert latents_BCTHW.isfinite().all()
        rewards.append(reward(latents_BCTHW, torch.zeros(2), [prompt] * 2)[:, 1])
    assert (rewards[0] < rewards[1]).all()
    assert (rewards[1] < rewards[2]).all()


def test_a_candidate_does_not_depend_on_its_batch_mates(config: PolicyConfig) -> None:
    policy, prompt, negative = load(config)
    sampler = GuidedSampler(policy, trained(config), {"sharp": 1.0})
    together = sampler.sample(prompt, negative, SEEDS)
    alone = sampler.sample(prompt, negative, SEEDS[1:])
    torch.testing.assert_close(alone[0], together[1], atol=1e-4, rtol=0)


def test_the_picture_that_is_the_first_frame_is_not_guided(tmp_path: Path) -> None:
    """Wan 2.2 TI2V: whatever the reward, the first latent frame stays the picture's."""
    config = tiny_policy(save_tiny_wan_i2v(tmp_path, is_ti2v=True), "wan_i2v")
    policy, prompt, negative = load(config)
    reward, plain = trained(config), policy.sample(prompt, negative, SEEDS)
    weights_K = torch.tensor([1.0, 1.0])
    gradient = reward.gradient(plain, torch.tensor([0.3, 0.9]), [prompt] * 2, weights_K)
    assert not gradient[:, :, :1].any() and gradient[:, :, 1:].any()
    guided = GuidedSampler(policy, reward, {"sharp": 1.0}).sample(prompt, negative, SEEDS)
    assert torch.equal(guided[:, :, :1], plain[:, :, :1])
    assert not torch.allclose(guided[:, :, 1:], plain[:, :, 1:], atol=1e-4)


@pytest.mark.parametrize("config", sorted(SOLVERS), indirect=True)
def test_every_step_of_any_solver_is_changed_at_its_own_time(config: PolicyConfig) -> None:
    policy, prompt, negative = load(config)
    solver = SOLVERS[config.family].from_config(
        policy._pipeline.scheduler.config,
        **({"use_flow_sigmas": True, "flow_shift": 3.0} if config.family == "wan" else {}),
    )
    policy._pipeline.scheduler = solver
    expected = policy.sample(prompt, negative, SEEDS)
    times: list[float] = []

    def change(prediction: Tensor, x_t: Tensor, t_B: Tensor) -> Tensor:
        assert prediction.shape == x_t.shape == expected.shape
        times.extend(t_B[:1].tolist())
        return prediction

    with policy.changed_predictions(change):
        assert torch.equal(policy.sample(prompt, negative, SEEDS), expected)
    assert len(times) == 3
    assert 1 >= times[0] > times[1] > times[2] > 0
    with pytest.raises(ZeroDivisionError), policy.changed_predictions(change):
        raise ZeroDivisionError
    assert "step" not in vars(solver)


def test_bad_requests_are_refused(config: PolicyConfig) -> None:
    policy, _, _ = load(config)
    reward = trained(config)
    with pytest.raises(ConfigError, match=r"unknown dimension 'loud'; .* sharp, steady"):
        GuidedSampler(policy, reward, {"loud": 1.0})
    for max_factor in (0.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="max_factor must be > 0"):
            GuidedSampler(policy, reward, {"sharp": 1.0}, max_factor=max_factor)

"""Latent rewards on tiny genuine checkpoints: what they compute, keep on disk and refuse."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
from torch import Tensor

from tests.families.wan_2_2 import BOUNDARY, save_tiny_wan_2_2
from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
from videorl.embedding import Embedding
from videorl.errors import CheckpointError, ConfigError
from videorl.guidance.config import WEIGHTS_FILE, LatentRewardConfig, parse_weights
from videorl.guidance.latent_reward import (
    LatentReward,
    RewardHead,
    first_layers,
    load_latent_reward,
)
from videorl.policies import FAMILIES, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.experts import models_of
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.precision import hold_frozen_layers
from videorl.pretraining.checkpoint import build_components, save_checkpoint
from videorl.settings.model import LoraConfig, PolicyConfig, SamplingConfig

Inputs: TypeAlias = tuple[Tensor, Tensor, list[Embedding]]


@pytest.fixture(params=sorted(FAMILIES))
def policy(request: pytest.FixtureRequest, tiny_checkpoints: dict[str, Path]) -> PolicyConfig:
    return tiny_policy(tiny_checkpoints[request.param], request.param)


def sampling_of(policy: PolicyConfig) -> SamplingConfig:
    return tiny_sampling(policy.family)


def build(policy: PolicyConfig, *, train: str = "blocks", head: str = "attention") -> LatentReward:
    layers, base_digest = first_layers(policy, sampling_of(policy), 1)
    config = LatentRewardConfig(
        family=policy.family,
        policy=policy.path,
        base_digest=base_digest,
        num_layers=1,
        head=head,
        train=train,
        dimensions=("sharp", "steady"),
        latent_shape=TINY[policy.family].latents,
        lora=dataclasses.replace(policy.lora, target_modules=policy.lora.target_modules[:2])
        if train == "lora"
        else None,
    )
    return LatentReward(layers, config, seed=3)


def change_weights(reward: LatentReward) -> None:
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in reward.trained_weights().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=draw)


def inputs(policy: PolicyConfig) -> Inputs:
    draw = torch.Generator().manual_seed(1)
    encoder = load_policy(policy, sampling_of(policy), parts=frozenset({"text_encoder"}))
    embeds = encode(encoder, ["a red circle", "blue"])
    x_t_BCTHW = torch.randn(2, *TINY[policy.family].latents, generator=draw)
    return x_t_BCTHW, torch.tensor([0.2, 1.0]), embeds


@torch.no_grad()
def assert_equal_rewards(found: LatentReward, expected: LatentReward, given: Inputs) -> None:
    live, parameters = dict(expected.named_parameters()), dict(found.named_parameters())
    assert live.keys() == parameters.keys()
    assert all(torch.equal(parameter, live[name]) for name, parameter in parameters.items())
    torch.testing.assert_close(found(*given), expected(*given), atol=1e-5, rtol=0)


def test_the_head_by_hand() -> None:
    head = RewardHead("mean", 2, 1)
    tokens_BND = torch.tensor([[[3.0, 1.0], [9.0, 5.0], [0.0, 2.0]]])
    with torch.no_grad():
        head.weight_K2D.copy_(torch.tensor([[1.0, 2.0, 4.0, 8.0]]))
        head.bias_K.fill_(0.5)
    # Normed tokens are (1, -1), (1, -1), (-1, 1); their mean (1/3, -1/3).
    # At t = 0.5: 1/3 - 2/3 + 0.5 (4/3 - 8/3) + 0.5.
    found = head(tokens_BND, torch.tensor([0.5]))
    torch.testing.assert_close(found, torch.tensor([[-0.5]]), atol=1e-4, rtol=0)
    assert not head.query_KD.requires_grad
    attention = RewardHead("attention", 2, 1)
    attention.load_state_dict(head.state_dict())
    with torch.no_grad():
        attention.query_KD.copy_(torch.tensor([[100.0, -100.0]]))
    # All attention is on the first two tokens: (1, -1) gives 1 - 2 + 0.5 (4 - 8) + 0.5.
    found = attention(tokens_BND, torch.tensor([0.5]))
    torch.testing.assert_close(found, torch.tensor([[-2.5]]), atol=1e-3, rtol=0)


def test_features_are_those_of_the_whole_model_s_first_block(tmp_path: Path) -> None:
    components = build_components(0, width=32, layers=2, vae_width=16, text_width=16)
    save_checkpoint(components, tmp_path, torch.float32)
    config = tiny_policy(tmp_path, rank=0)
    whole = load_policy(config, tiny_sampling(), parts=frozenset({"transformer"}))
    assert isinstance(whole, PipelinePolicy)
    seen: list[Tensor] = []
    whole.blocks()[0].register_forward_hook(lambda *hook: seen.append(hook[2]))
    whole.predict(*inputs(config), "policy")
    layers, _ = first_layers(config, tiny_sampling(), 1)
    assert torch.equal(layers.features(*inputs(config)), seen[0])
    with pytest.raises(ConfigError, match=r"num_layers must be 1 \.\.\. 2.* got 3"):
        first_layers(config, tiny_sampling(), 3)


def test_of_two_transformers_each_item_has_the_tokens_of_that_of_its_time(tmp_path: Path) -> None:
    config = tiny_policy(save_tiny_wan_2_2(tmp_path, layers=2), "wan_2_2", rank=0)
    x_t, _, embeds = inputs(config)
    given = x_t.repeat(2, 1, 1, 1, 1), torch.tensor([0.2, BOUNDARY, 1.0, 0.7]), [*embeds, *embeds]
    whole = load_policy(config, sampling_of(config), parts=frozenset({"transformer"}))
    seen: dict[str, Tensor] = {}
    for name, model in models_of(whole.trainable_module()).items():
        model.blocks[0].register_forward_hook(
            lambda *hook, name=name: seen.__setitem__(name, hook[2])
        )
    whole.predict(*given, "policy")
    first, second = seen["transformer"], seen["transformer_2"]
    expected = torch.stack([second[0], first[0], first[1], second[1]])
    config.experts = "high"  # what is trained of a policy says nothing about its rewards
    layers, _ = first_layers(config, sampling_of(config), 1)
    assert torch.equal(layers.features(*given), expected)
    with pytest.raises(ConfigError, match=r"num_layers must be 1 \.\.\. 2.* got 3"):
        first_layers(config, sampling_of(config), 3)


def test_only_the_layers_that_are_kept_go_to_the_device(tmp_path: Path) -> None:
    """The meta device has no numbers: had they gone there first, no digest could be compared."""
    components = build_components(0, width=32, layers=3, vae_width=16, text_width=16)
    save_checkpoint(components, tmp_path / "policy", torch.float32)
    policy = tiny_policy(tmp_path / "policy")
    build(policy).save(tmp_path / "reward")
    opened = load_latent_reward(
        tmp_path / "reward", policy, tiny_sampling(), device=torch.device("meta")
    )
    assert {parameter.device.type for parameter in opened.parameters()} == {"meta"}
    whole = sum(parameter.numel() for parameter in components["transformer"].parameters())
    block = sum(parameter.numel() for parameter in components["transformer"].blocks[0].parameters())
    assert sum(parameter.numel() for parameter in opened.trunk.parameters()) == whole - 2 * block


def test_frozen_layers_held_in_the_compute_type_give_the_same_scores(policy: PolicyConfig) -> None:
    reward, given = build(policy, train="lora"), inputs(policy)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        expected = reward.policy.features(*given)
        num_bytes = sum(parameter.nbytes for parameter in reward.parameters())
        hold_frozen_layers(reward.trunk, torch.bfloat16)
        assert torch.equal(reward.policy.features(*given), expected)
    assert sum(parameter.nbytes for parameter in reward.parameters()) < 0.7 * num_bytes
    assert {p.dtype for p in reward.trained_weights().values()} == {torch.float32}


def test_the_gradient_is_that_of_the_weighted_reward(policy: PolicyConfig) -> None:
    reward, (x_t, t_B, embeds) = build(policy), inputs(policy)
    weights_K = torch.tensor([2.0, -0.5])
    with torch.no_grad():  # as a pipeline calls it
        gradient = reward.gradient(x_t, t_B, embeds, weights_K)
        step = 1e-2 * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
        up, down = (reward(x_t + sign * step, t_B, embeds) @ weights_K for sign in (1, -1))
    slope_B = (up - down) / 2e-2
    torch.testing.assert_close(slope_B, gradient.flatten(1).norm(dim=1), rtol=0.02, atol=1e-3)
    assert all(p.grad is None for p in reward.parameters())


@pytest.mark.parametrize("train", ["head", "lora", "blocks"])
def test_what_is_trained_gets_gradients_and_comes_back_from_disk(
    policy: PolicyConfig, train: str, tmp_path: Path
) -> None:
    reward, given = build(policy, train=train), inputs(policy)
    reward(*given).square().sum().backward()
    trained = reward.trained_weights()
    found = {name for name, p in reward.named_parameters() if p.grad is not None}
    assert found == trained.keys()
    assert any("head" not in name for name in trained) == (train != "head")
    change_weights(reward)
    reward.save(tmp_path)
    opened = load_latent_reward(tmp_path, policy, sampling_of(policy))
    assert opened.config == reward.config
    assert_equal_rewards(opened, reward, given)
    assert not opened.trained_weights()


def test_an_aligned_policy_keeps_the_reward_of_its_base(
    policy: PolicyConfig, tmp_path: Path
) -> None:
    reward = build(policy)
    reward.save(tmp_path / "reward")
    aligned = load_policy(policy, sampling_of(policy), parts=PARTS, seed=1)
    aligned.load_weights({name: tensor + 0.1 for name, tensor in aligned.weights().items()})
    aligned.export(tmp_path / "aligned")
    with_adapter = dataclasses.replace(
        policy, lora=dataclasses.replace(policy.lora, initial=str(tmp_path / "aligned"))
    )
    opened = load_latent_reward(tmp_path / "reward", with_adapter, sampling_of(policy))
    assert_equal_rewards(opened, reward, inputs(policy))


def test_a_reward_of_another_policy_is_refused(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    build(tiny_policy(tiny_checkpoints["wan"])).save(tmp_path / "reward")
    components = build_components(1, width=32, layers=1, vae_width=16, text_width=16)
    save_checkpoint(components, tmp_path / "other", torch.float32)
    with pytest.raises(CheckpointError, match=r"was trained on the weights of .*wan.*has [0-9a-f]"):
        load_latent_reward(tmp_path / "reward", tiny_policy(tmp_path / "other"), tiny_sampling())
    cogvideox = tiny_policy(tiny_checkpoints["cogvideox"], "cogvideox")
    with pytest.raises(ConfigError, match=r"policy\.family=wan.*the recipe has cogvideox"):
        load_latent_reward(tmp_path / "reward", cogvideox, tiny_sampling())


def test_damaged_folders_are_refused(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> None:
    policy = tiny_policy(tiny_checkpoints["wan"])
    with pytest.raises(CheckpointError, match="is not a configuration of a latent reward"):
        load_latent_reward(tmp_path, policy, sampling_of(policy))
    build(policy).save(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"dimensions": ["sharp"]}))
    with pytest.raises(CheckpointError, match=r"head\.bias_K"):
        load_latent_reward(tmp_path, policy, sampling_of(policy))
    (tmp_path / "config.json").write_text(json.dumps(settings | {"format": 99}))
    with pytest.raises(CheckpointError, match="newer version"):
        load_latent_reward(tmp_path, policy, sampling_of(policy))
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / WEIGHTS_FILE).write_bytes(b"?")
    with pytest.raises(CheckpointError, match=WEIGHTS_FILE):
        load_latent_reward(tmp_path, policy, sampling_of(policy))


def test_latents_of_another_size_are_refused(policy: PolicyConfig) -> None:
    reward, (x_t, t_B, embeds) = build(policy), inputs(policy)
    with pytest.raises(ConfigError, match="was trained on latents"):
        reward(x_t[:, :, :, :2], t_B, embeds)


def test_requests_are_checked_by_name() -> None:
    config = LatentRewardConfig(
        "wan", "x", "", 1, "mean", "lora", ("sharp", "steady"), (1, 1, 1, 1), LoraConfig()
    )
    assert parse_weights(["sharp=1", "steady=-0.5"], config) == {"sharp": 1.0, "steady": -0.5}
    for request, message in (
        ("sharpness=1", r"unknown dimension 'sharpness'; .* scores sharp, steady"),
        ("sharp", "expected dimension=weight, got 'sharp'"),
        ("sharp=much", "expected dimension=weight"),
        ("sharp=nan", "must be finite, got nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_weights([request], config)
    with pytest.raises(ConfigError, match=r"sharp has two weights, 1\.0 and 2"):
        parse_weights(["sharp=1", "sharp=2"], config)


def test_recipes_that_merge_adapters_for_sampling_have_latent_rewards(
    tiny_checkpoints: dict[str, Path],
) -> None:
    policy = tiny_policy(tiny_checkpoints["wan"], "wan")
    merging = dataclasses.replace(sampling_of(policy), merge_lora=True)
    _, base_digest = first_layers(policy, merging, 1)
    assert base_digest == first_layers(policy, sampling_of(policy), 1)[1]

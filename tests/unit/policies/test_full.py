"""Full fine-tuning: where the policy and its frozen copies lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.hooks.group_offloading import ModuleGroup
from torch import nn

from tests.tiny import TINY, tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.policies import FAMILIES, load_policy, loading
from videorl.policies.experts import models_of
from videorl.policies.full import IN_SHARDS, train_everything
from videorl.policies.images import example
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.policies.trained import TrainedWeights
from videorl.protocols import Role
from videorl.recipes.reading import load_recipe

ROLES: tuple[Role, ...] = ("policy", "reference", "base")


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def load(family: str, tiny_checkpoints: dict[str, Path]) -> Callable[[str, str], PipelinePolicy]:
    def load(where: str, device: str) -> PipelinePolicy:
        config = tiny_policy(tiny_checkpoints[family], family, rank=0)
        config.frozen_device = where
        policy = load_policy(
            config,
            tiny_sampling(family),
            parts=frozenset({"transformer"}),
            device=torch.device(device),
            trainable=True,
            keep_base=True,
        )
        assert isinstance(policy, PipelinePolicy)
        return policy

    return load


def modules(policy: PipelinePolicy) -> list[nn.Module]:
    found: list[nn.Module] = []
    for role in ROLES:
        with policy._weights().using(role) as module:
            found.append(module)
    return found


def test_copies_are_made_on_the_cpu_and_then_go_to_the_device(
    load: Callable[[str, str], PipelinePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made on the device, two models in float32 would be there at once; meta stands for a GPU."""
    devices: list[str] = []

    def made(model: Any, **options: Any) -> TrainedWeights:
        devices.append(model.device.type)
        return train_everything(model, **options)

    monkeypatch.setattr(loading, "train_everything", made)
    policy = load("auto", "meta")
    assert {*devices} == {"cpu"}
    places = [{p.device.type for p in module.parameters()} for module in modules(policy)]
    assert places == [{"meta"}] * 3


def test_a_reference_in_host_memory_predicts_the_same_and_is_on_the_device_for_that_alone(
    family: str, load: Callable[[str, str], PipelinePolicy], monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, beside = load("cpu", "cpu"), load("auto", "cpu")
    moves: list[tuple[str, int]] = []
    for name in ("onload_", "offload_"):
        move = getattr(ModuleGroup, name)

        def counted(group: ModuleGroup, name: str = name, move: Any = move) -> None:
            moves.append((name, id(group)))
            move(group)

        monkeypatch.setattr(ModuleGroup, name, counted)
    draw = torch.Generator().manual_seed(0)
    embed = example(policy._family, policy._pipeline, policy._sampling).map(
        lambda zeros: torch.randn(zeros.shape, generator=draw)
    )
    x_t, embeds = torch.randn(2, *TINY[family].latents, generator=draw), [embed] * 2
    t_B = torch.tensor([0.3, 0.9])
    models = models_of(policy.trainable_module())
    children = [child for model in models.values() for child in model.children()]
    lists = [part for part in children if isinstance(part, nn.ModuleList | nn.Sequential)]
    blocks = sum(map(len, lists))
    with torch.no_grad():
        for one in (policy, beside):
            for parameter in one.trainable_module().parameters():
                parameter.add_(0.01)
            one.update_reference()
    for role in ROLES:
        found, expected = (one.predict(x_t, t_B, embeds, role) for one in (policy, beside))
        assert torch.equal(found, expected)
        groups = {group for _, group in moves}
        assert len(groups) == (0 if role == "policy" else blocks + len(models)), (
            "blocks, and all else"
        )
        for group in groups:
            assert [name for name, moved in moves if moved == group] == ["onload_", "offload_"]
        moves.clear()
    assert not torch.equal(
        policy.predict(x_t, t_B, embeds, "base"), policy.predict(x_t, t_B, embeds, "reference")
    )


def test_in_shards_policy_and_copies_wait_on_the_cpu_for_an_engine(
    load: Callable[[str, str], PipelinePolicy],
) -> None:
    policy = load(IN_SHARDS, "meta")
    places = [{p.device.type for p in module.parameters()} for module in modules(policy)]
    assert places == [{"cpu"}] * 3
    assert policy.networks() == modules(policy)


def test_an_adapter_has_no_frozen_copy_to_place() -> None:
    with pytest.raises(ConfigError, match=r"policy\.frozen_device must be auto unless"):
        load_recipe("moving_shapes", ["policy.frozen_device=cpu"])
    with pytest.raises(ConfigError, match=r"policy\.frozen_device must be one of auto, cpu"):
        load_recipe("moving_shapes", ["policy.lora.rank=0", "policy.frozen_device=cuda"])
    whole = ["policy.lora.rank=0", "sampling.merge_lora=false"]
    load_recipe("moving_shapes", [*whole, "policy.frozen_device=cpu"])

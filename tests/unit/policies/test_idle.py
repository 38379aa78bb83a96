"""Two transformers that take turns: the idle one is away, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.families.wan_2_2 import BOUNDARY, save_tiny_wan_2_2
from tests.tiny import encode, tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.policies import idle, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.experts import Experts, models_of
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.recipes.reading import load_recipe
from videorl.weights import digest

DRAW = torch.Generator().manual_seed(0)
X_T = torch.randn(4, 12, 3, 4, 4, generator=DRAW)
MIXED = torch.tensor([0.1, BOUNDARY, 1.0, 0.7])
NAMES = ("transformer", "transformer_2")


class Elsewhere:
    """Stands for host memory: a weight that is sent there is empty here until it is brought."""

    def __init__(self) -> None:
        self.held: dict[int, Tensor] = {}
        self.most = 0

    def send(self, parameter: nn.Parameter) -> None:
        if id(parameter) not in self.held:
            self.held[id(parameter)] = parameter.data
            parameter.data = torch.empty(0, dtype=parameter.dtype)

    def bring(self, parameter: nn.Parameter, device: torch.device) -> None:
        if id(parameter) in self.held:
            parameter.data = self.held.pop(id(parameter))
        self.most = max(self.most, len(self.held))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Elsewhere:
    there = Elsewhere()
    monkeypatch.setattr(idle, "send", there.send)
    monkeypatch.setattr(idle, "bring", there.bring)
    return there


@pytest.fixture(params=[4, 0], ids=["lora", "full"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., PipelinePolicy]:
    folder = save_tiny_wan_2_2(tmp_path / "checkpoint", layers=2)

    def load(where: str = "cpu", experts: str = "both", **options: Any) -> PipelinePolicy:
        config = tiny_policy(folder, "wan_2_2", rank=request.param)
        config = replace(config, experts=experts, idle_expert=where)
        config.gradient_checkpointing = options.pop("checkpointing", "auto")
        made = load_policy(config, tiny_sampling("wan_2_2"), parts=PARTS, **options)
        assert isinstance(made, PipelinePolicy)
        if config.lora.rank:
            draw = torch.Generator().manual_seed(1)
            weights = made.weights().items()
            made.load_weights({n: w + torch.randn(w.shape, generator=draw) / 8 for n, w in weights})
        return made

    return load


def away(policy: PipelinePolicy) -> list[str]:
    module = policy.trainable_module()
    assert isinstance(module, Experts)
    found = models_of(module).items()
    return [name for name, model in found if any(not p.numel() for p in model.parameters())]


def test_samples_are_the_same_bit_for_bit_and_one_is_away(
    load: Callable[..., PipelinePolicy], elsewhere: Elsewhere
) -> None:
    plain = load("auto")
    prompt, negative = encode(plain, ["a red circle", ""])
    expected = plain.sample(prompt, negative, [1, 2])
    assert not elsewhere.held
    policy = load()
    assert away(policy) == ["transformer_2"]
    for _ in range(2):
        assert torch.equal(policy.sample(prompt, negative, [1, 2]), expected)
        assert away(policy) == ["transformer"]
    for name, model in models_of(policy.trainable_module()).items():
        outside = [one for n, one in model.named_parameters() if not n.startswith("blocks.")]
        assert outside and all(one.numel() for one in outside), name
        assert all(one.numel() for n, one in model.named_parameters() if ".lora_" in n)


@pytest.mark.parametrize("experts", ["both", "low"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_of_a_batch_of_both_are_the_same_bit_for_bit(
    load: Callable[..., PipelinePolicy], elsewhere: Elsewhere, experts: str, checkpointing: bool
) -> None:
    found: list[tuple[list[Tensor], list[Tensor | None]]] = []
    for where in ("auto", "cpu"):
        options = {"trainable": True, "checkpointing": checkpointing}
        policy = load(where, experts, **options)
        embeds = encode(policy, ["red", "blue", "a red circle", ""])
        predictions = [policy.predict(X_T, MIXED, embeds, role) for role in ("reference", "policy")]
        again = policy.predict(X_T[:2], MIXED[:2], embeds[:2], "policy")
        (predictions[1].square().sum() + again.sum()).backward()
        gradients = [one.grad for one in policy.trainable_module().parameters()]
        found.append(([*predictions, again], gradients))
    for one, other in zip(*(predictions for predictions, _ in found), strict=True):
        assert torch.equal(one, other)
    for one, other in zip(*(gradients for _, gradients in found), strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)
    has_moved = elsewhere.most > 0
    assert has_moved == (policy._is_lora or experts == "low"), "what is trained whole stays"


def test_an_export_is_tried_with_each_in_its_place(
    load: Callable[..., PipelinePolicy], elsewhere: Elsewhere, tmp_path: Path
) -> None:
    policy = load(trainable=True)
    policy.export(tmp_path / "export")
    found = sorted(path.name for path in (tmp_path / "export").iterdir())
    files = ["pytorch_lora_weights.safetensors", "pytorch_lora_weights_2.safetensors"]
    assert found == (files if policy._is_lora else [*NAMES])


def test_it_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    settings = ("family=wan_2_2", "path=folder", "idle_expert=cpu")
    two = ["sampling.merge_lora=false", *(f"policy.{setting}" for setting in settings)]
    load_recipe("moving_shapes", two)
    for overrides, message in (
        ([two[0], two[-1]], r"idle_expert must be auto for policy\.family=wan,"),
        ([*two, "policy.idle_expert=gpu"], r"idle_expert must be one of auto, cpu"),
        (
            [*two, "learner.zero_stage=3"],
            r"idle_expert must be auto where learner\.zero_stage",
        ),
        ([*two, "sampling.merge_lora=true"], r"merge_lora must be false where policy\.idle_expert"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_recipe("moving_shapes", overrides)


@pytest.mark.gpu
def test_on_a_gpu_blocks_of_the_idle_one_lie_in_host_memory(
    load: Callable[..., PipelinePolicy],
) -> None:
    plain, policy = load("auto"), load()
    prompt, negative = encode(plain, ["a red circle", ""])
    expected = plain.sample(prompt, negative, [1, 2])
    assert torch.equal(policy.sample(prompt, negative, [1, 2]), expected)
    changed = {name: one + 0.01 for name, one in policy.weights().items()}
    for each in (plain, policy):  # in full fine-tuning, also into what waits
        each.load_weights(changed)
    assert digest(policy.weights()) == digest(plain.weights())
    expected = plain.sample(prompt, negative, [1, 2])
    assert torch.equal(policy.sample(prompt, negative, [1, 2]), expected)
    first, second = models_of(policy.trainable_module()).values()
    assert {one.device.type for one in first.blocks.parameters()} >= {"cpu"}
    assert {one.device.type for one in second.parameters()} == {"cuda"}

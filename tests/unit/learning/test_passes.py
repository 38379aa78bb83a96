"""One video at a time gives the gradient of the joint pass, on stock models of every kind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.groups import random_pair
from tests.tiny import tiny_policy, tiny_sampling
from videorl.embedding import Embedding
from videorl.learning.from_candidates import FromCandidates
from videorl.learning.gradient_step import with_last
from videorl.objectives.dpo import FlowDPO
from videorl.objectives.objective import CandidateObjective
from videorl.policies import load_policy
from videorl.protocols import DifferentiablePolicy, Role
from videorl.types import PreferencePair


class Counting:
    """Counts the videos that a policy predicts, with and without gradient."""

    def __init__(self, policy: DifferentiablePolicy) -> None:
        self._policy = policy
        self.calls: list[tuple[str, bool, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def predict(self, x_t: Tensor, t: Tensor, embeds: list[Embedding], role: Role) -> Tensor:
        self.calls.append((role, torch.is_grad_enabled(), len(x_t)))
        return self._policy.predict(x_t, t, embeds, role)


def pairs_for(policy: Any, count: int) -> list[PreferencePair]:
    """Return pairs with random latents of the policy's shape, and embeddings of its own."""
    prompt, negative = policy.encode(["a red circle", ""])
    shape = tuple(policy.sample(prompt, negative, [0])[0].shape)
    pairs = [random_pair(index, shape, 1) for index in range(count)]
    return [replace(pair, prompt_embeds=prompt) for pair in pairs]


def gradients(
    policy: DifferentiablePolicy, objective: CandidateObjective, videos: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the gradients of a step on three pairs, and what is measured."""
    module = policy.trainable_module()
    pairs = pairs_for(policy, 3)
    method = FromCandidates(policy, objective, seed=0, videos_per_forward=videos)
    totals: dict[str, float] = {}
    items = method.items(0, pairs)[0][0].items
    for run in method.passes(items):
        loss, measured = run()
        loss.backward()
        totals |= {name: totals.get(name, 0) + value.item() for name, value in measured.items()}
    found = {
        name: parameter.grad.clone()
        for name, parameter in module.named_parameters()
        if parameter.grad is not None
    }
    module.zero_grad(set_to_none=True)
    return found, totals


@pytest.mark.parametrize("family", ["wan", "cogvideox"])
@pytest.mark.parametrize("rank", [4, 0])
@pytest.mark.parametrize("videos", [1, 2, 5])
def test_the_gradient_is_that_of_the_joint_pass(
    family: str, rank: int, videos: int, tiny_checkpoints: dict[str, Path]
) -> None:
    config = tiny_policy(tiny_checkpoints[family], family, rank=rank)
    policy = load_policy(
        config,
        tiny_sampling(family),
        parts=frozenset({"transformer", "text_encoder"}),
        trainable=True,
    )
    with torch.no_grad():  # away from the reference, so that no two errors are alike
        for parameter in policy.trainable_module().parameters():
            if parameter.requires_grad:
                parameter += 0.01 * torch.randn_like(parameter)
    objective = FlowDPO(beta=50.0, timesteps_per_pair=2, sft_weight=0.1, protect_chosen=True)
    joint, measured = gradients(policy, objective, 100)
    split, again = gradients(policy, objective, videos)
    assert split.keys() == joint.keys()
    assert measured == pytest.approx(again, rel=1e-4, abs=1e-5)
    scale = torch.cat([gradient.flatten() for gradient in joint.values()]).abs().max().item()
    for name, gradient in joint.items():
        torch.testing.assert_close(split[name], gradient, rtol=1e-3, atol=1e-4 * scale, msg=name)


def test_after_a_swap_the_policy_predicts_for_the_reference(
    tiny_checkpoints: dict[str, Path],
) -> None:
    policy: Any = Counting(
        load_policy(
            tiny_policy(tiny_checkpoints["wan"]),
            tiny_sampling(),
            parts=frozenset({"transformer", "text_encoder"}),
            trainable=True,
        )
    )

    pairs = pairs_for(policy, 1)

    def losses(reference_is_policy: bool) -> list[float]:
        policy.calls.clear()
        method = FromCandidates(policy, FlowDPO(timesteps_per_pair=1), 0, videos_per_forward=1)
        method.reference_is_policy = reference_is_policy
        items = method.items(0, pairs)[0][0].items
        return [run()[0].item() for run in method.passes(items)]

    plain = losses(False)
    without, with_gradient = ("policy", False, 1), ("policy", True, 1)
    assert policy.calls == [without] * 2 + [("reference", False, 1)] * 2 + [with_gradient] * 2
    assert losses(True) == plain
    assert policy.calls == [without] * 2 + [with_gradient] * 2


def test_after_a_swap_a_joint_pass_needs_no_reference(tiny_checkpoints: dict[str, Path]) -> None:
    policy: Any = Counting(
        load_policy(
            tiny_policy(tiny_checkpoints["wan"]),
            tiny_sampling(),
            parts=frozenset({"transformer", "text_encoder"}),
            trainable=True,
        )
    )
    pairs = pairs_for(policy, 1)

    def measured(reference_is_policy: bool) -> tuple[float, list[torch.Tensor]]:
        policy.calls.clear()
        method = FromCandidates(policy, FlowDPO(timesteps_per_pair=1, sft_weight=1.0), 0)
        method.reference_is_policy = reference_is_policy
        (run,) = method.passes(method.items(0, pairs)[0][0].items)
        loss, _ = run()
        trained = [p for p in policy.trainable_module().parameters() if p.requires_grad]
        return loss.item(), list(torch.autograd.grad(loss, trained))

    loss, gradients = measured(False)
    assert policy.calls == [("reference", True, 2), ("policy", True, 2)]
    again, same = measured(True)
    assert policy.calls == [("policy", True, 2)]
    assert again == loss
    assert all(map(torch.equal, same, gradients))


def test_items_are_made_when_they_are_near() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    seen = [(number, is_last, len(made)) for number, is_last in with_last(items())]
    assert seen == [(0, False, 2), (1, False, 3), (2, True, 3)]
    assert list(with_last([])) == []

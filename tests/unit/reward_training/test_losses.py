"""Bradley-Terry with ties: the authors' numbers, hand-computed ones, and the model behind it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from videorl.reward_training.losses import (
    INVALID,
    PREFERS_A,
    PREFERS_B,
    SAME,
    bradley_terry_with_ties,
)

FIXTURE = json.loads((Path(__file__).parents[2] / "fixtures/btt_loss/cases.json").read_text())
LABELS = [PREFERS_A, PREFERS_B, SAME]


@pytest.mark.parametrize("case", FIXTURE["cases"], ids=lambda case: case["id"])
def test_loss_and_gradients_are_those_of_the_authors_code(case: dict[str, Any]) -> None:
    rewards_a_BK = torch.tensor(case["rewards_A"], requires_grad=True)
    rewards_b_BK = torch.tensor(case["rewards_B"], requires_grad=True)
    loss = bradley_terry_with_ties(rewards_a_BK, rewards_b_BK, torch.tensor(case["label"])).mean()
    loss.backward()
    assert loss.item() == pytest.approx(case["expected"]["loss"], rel=1e-5)
    for rewards_BK, name in ((rewards_a_BK, "grad_A"), (rewards_b_BK, "grad_B")):
        expected = torch.tensor(case["expected"][name])
        torch.testing.assert_close(rewards_BK.grad, expected, rtol=0, atol=1e-6)


def test_equal_rewards_by_hand() -> None:
    # P(A) = P(B) = 1 / (1 + 5), P(tie) = (25 - 1) / 36.
    labels_BK = torch.tensor([[*LABELS, INVALID]])
    zeros_BK = torch.zeros(1, 4)
    loss_BK = bradley_terry_with_ties(zeros_BK, zeros_BK, labels_BK)
    expected = [math.log(6), math.log(6), -math.log(24 / 36), 0.0]
    assert loss_BK[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_probabilities_of_a_pair_sum_to_one() -> None:
    first, second = torch.tensor([[2.0, -30.0, 0.1]]), torch.tensor([[-1.0, 40.0, 0.3]])
    loss = [
        bradley_terry_with_ties(first, second, torch.full((1, 3), label), k=3.0) for label in LABELS
    ]
    total = sum(values.neg().exp() for values in loss)
    torch.testing.assert_close(total, torch.ones(1, 3))

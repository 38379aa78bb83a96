"""How far a generator's sample may be from the learner's."""

from __future__ import annotations

import pytest
import torch

from tests.learners import tiny_recipe
from videorl.errors import WeightMismatchError
from videorl.sampling.canary import canary_request, compare, difference, is_due
from videorl.types import WeightVersion

VERSION = WeightVersion(4, "abc")


def test_the_difference_is_relative_to_the_norm() -> None:
    wanted = torch.tensor([[3.0, 4.0]])
    assert difference(wanted, wanted) == 0.0
    assert difference(torch.tensor([[3.0, 4.5]]), wanted) == pytest.approx(0.1)
    assert compare(torch.tensor([[3.0, 4.5]]), wanted, VERSION, tolerance=0.11) > 0


@pytest.mark.parametrize("found", [4.5, float("nan")])
def test_too_far_names_both_numbers(found: float) -> None:
    with pytest.raises(WeightMismatchError, match=r"step 4: .* by (0.1|nan) .* allowed are 0.05"):
        compare(torch.tensor([3.0, found]), torch.tensor([3.0, 4.0]), VERSION, tolerance=0.05)


def test_it_is_the_same_request_for_every_version_and_due_by_the_interval() -> None:
    recipe = tiny_recipe()
    first, second = (canary_request(recipe.seed, WeightVersion(step, "v")) for step in (2, 5))
    assert (first.prompt, first.seeds) == (second.prompt, second.seeds)
    assert not is_due(recipe.rollouts, WeightVersion(0, "v")), "off by default"
    recipe.rollouts.canary_interval = 3
    assert [step for step in range(7) if is_due(recipe.rollouts, WeightVersion(step, "v"))] == [
        0,
        3,
        6,
    ]

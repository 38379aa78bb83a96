"""Several updates of one step, and updates that shrink with missing prompts, worked out by hand.

The loss of an example is half the squared distance of a weight from the example's target, and
updates go down the gradient with length 1: a mean over examples puts the weight on the mean of
their targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.learners import PlainDescent, tiny_recipe
from tests.tiny_policy import TinyPolicy
from videorl.learning.build import step_settings
from videorl.learning.learner import Learner
from videorl.learning.passes import Pass
from videorl.learning.share import ALONE, Plan, Ranks, Update
from videorl.objectives.objective import EXAMPLES, LOSS, NOT_FINITE
from videorl.run.checkpoints import CheckpointFolder
from videorl.types import Prompt


@dataclass(frozen=True)
class Target:
    """An example and an item."""

    prompt: Prompt
    value: float
    weight: float = 0.0
    num_videos: int = 1


class Towards:
    """A learner's method: the mean half squared distance of the first weight from targets."""

    reference_is_policy = False

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight

    def items(
        self, step: int, examples: Sequence[Target], ranks: Ranks = ALONE, num_updates: int = 1
    ) -> tuple[list[Update[Target]], int]:
        """Leave out what is NaN, as real methods do."""
        usable = [example for example in examples if example.value == example.value]
        share = 1 / max(1, len(usable))
        items = [Target(example.prompt, example.value, share) for example in usable]
        parts = Plan(1, ranks, num_updates).parts(len(items))
        found = [Update(items[part.start : part.end], part.share) for part in parts]
        return found, len(examples) - len(usable)

    def shortened(self, items: Sequence[Any]) -> Sequence[Any]:
        return items

    def passes(self, items: Sequence[Target]) -> list[Pass]:
        def run() -> tuple[Tensor, dict[str, Tensor]]:
            loss = sum(item.weight * (self._weight[0] - item.value) ** 2 / 2 for item in items)
            assert isinstance(loss, Tensor)
            return loss, {LOSS: loss.detach()}

        return [run]


@dataclass
class Trial:
    """A learner that begins with the weight 0."""

    learner: Learner
    weight: Tensor

    def step(self, targets: Sequence[float], per_prompt: int = 1) -> dict[str, float]:
        examples = [
            Target(Prompt(place // per_prompt, ""), value) for place, value in enumerate(targets)
        ]
        return dict(self.learner.step(0, examples).metrics)


def trial(folder: Path, updates: int = 1, over: str = "found") -> Trial:
    recipe = tiny_recipe(micro_batch_size=1, max_grad_norm=1e9)
    recipe.prompts.per_round = 4
    recipe.learner.updates_per_round, recipe.learner.loss_over = updates, over
    policy = TinyPolicy()
    weight = policy.module.get_parameter("last.bias")
    torch.nn.init.zeros_(weight)
    engine, checkpoints = PlainDescent(policy.trainable_module()), CheckpointFolder(folder, 1)
    method = Towards(weight)
    learner = Learner(policy, method, engine, step_settings(recipe), checkpoints)
    learner.start()
    return Trial(learner, weight)


@pytest.mark.parametrize(
    ("updates", "over", "targets", "expected"),
    [
        (1, "found", [1, 3], 2.0),
        (1, "planned", [1, 3], 1.0),  # two of four prompts: half the way
        (1, "planned", [1, 3, 5, 7], 4.0),  # all of them: the same as `found`
        (2, "found", [1, 3, 5, 9], 7.0),  # to 2, then to 7
        (2, "planned", [1, 3, 5, 9], 7.0),
        (2, "found", [1, 3, 5], 4.0),  # to 1, then to the mean of 3 and 5
        # Each example counts 2 / 4: to 0.5, then 0.5 x (2.5 + 4.5) further.
        (2, "planned", [1, 3, 5], 4.0),
        (2, "planned", [8], 4.0),
        (4, "found", [8, 6], 6.0),  # no more updates than there is to learn from
        (1, "planned", [1, float("nan")], 0.25),  # one of four
        (1, "found", [1, float("nan")], 1.0),
    ],
)
def test_where_a_step_ends(
    updates: int, over: str, targets: list[float], expected: float, tmp_path: Path
) -> None:
    run = trial(tmp_path, updates, over)
    metrics = run.step(targets)
    assert run.weight[0].item() == pytest.approx(expected)
    num_lost = sum(value != value for value in targets)
    assert metrics[EXAMPLES] == len(targets) - num_lost
    assert metrics.get(NOT_FINITE, 0) == num_lost
    assert [version.step for version in run.learner.in_use()] == [1], "published once"


def test_planned_examples_are_as_many_as_other_prompts_gave(tmp_path: Path) -> None:
    run = trial(tmp_path, over="planned")
    run.step([1, 2, 4, 5], per_prompt=2)  # of two of four prompts
    assert run.weight[0].item() == pytest.approx(1.5)


def test_numbers_of_a_step_are_means_over_its_updates(tmp_path: Path) -> None:
    metrics = trial(tmp_path, 2).step([1, 3, 5, 9])
    # From 0: (1 + 9) / 4, gradient -2. From 2: (9 + 49) / 4, gradient -5.
    assert metrics[LOSS] == pytest.approx((2.5 + 14.5) / 2)
    assert metrics["optimizer/grad_norm"] == pytest.approx((2 + 5) / 2)
    assert metrics["optimizer/skipped"] == 0.0
    assert trial(tmp_path, over="planned").step([1, 3])[LOSS] == pytest.approx(2.5), "not scaled"

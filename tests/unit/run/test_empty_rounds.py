"""What counts as a step that learned, and what is said of a run in which none did."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from videorl.run.empty_rounds import nothing_learned, steps_learned


def test_a_step_whose_gradient_is_not_finite_has_not_learned(tmp_path: Path) -> None:
    learner, policy = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    rows = [dict(learner.step(0, tiny_pairs(0)).metrics), dict(learner.step(1, []).metrics)]
    for parameter in policy.trainable_module().parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: gradient * torch.nan)
    rows.append(dict(learner.step(2, tiny_pairs(2)).metrics))
    assert [row["learn/examples"] for row in rows] == [3, 0, 3]
    assert steps_learned(rows) == 1
    assert steps_learned(rows[1:]) == 0
    assert "none of 2 steps changed the weights: in 1 the gradient was not finite" in (
        nothing_learned(rows[1:])
    )
    assert "none of 1 steps had anything to learn from (no examples)" in nothing_learned(rows[1:2])


def test_rows_that_do_not_say_are_not_counted() -> None:
    assert steps_learned([{"time/step_s": 1.0}]) is None

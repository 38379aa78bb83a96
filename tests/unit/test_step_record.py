"""Numbers of a step: how far scores of a group are apart, and where the time went."""

from __future__ import annotations

import pytest

from tests.groups import scored_candidate, scored_group
from videorl.step_record import spreads, stage_times


def test_the_spread_is_a_mean_over_groups_of_deviations_within_them() -> None:
    # Within: √(((−1)² + 1²) / 2) = 1 around 1, and √((2² + 0 + 2²) / 3) = 1.633 around 12.
    groups = [scored_group([0.0, 2.0]), scored_group([10.0, 12.0, 14.0])]
    within = pytest.approx((1.0 + (8 / 3) ** 0.5) / 2)
    assert spreads(groups) == {"spread/quality": within, "spread/total": within}
    # Groups that differ only from one another have none; a single candidate says nothing.
    assert spreads([scored_group([1.0, 1.0]), scored_group([9.0, 9.0])])["spread/total"] == 0.0
    assert spreads([scored_group([3.0])]) == {}


def test_each_dimension_has_its_own_spread() -> None:
    candidates = [
        scored_candidate(0, 1.0, dimensions={"calm": 0.0, "sharp": 1.0}),
        scored_candidate(1, 1.0, dimensions={"calm": 1.0, "sharp": 0.0}),
    ]
    found = spreads([scored_group([], candidates=candidates)])
    assert found == {"spread/calm": 0.5, "spread/sharp": 0.5, "spread/total": 0.0}


def test_stages_add_up_to_the_step() -> None:
    metrics = {"time/wait_s": 1.0, "time/learn_s": 2.0, "learn/loss": 9.0}
    assert stage_times(metrics, 3.5) == {"time/other_s": 0.5, "time/step_s": 3.5}

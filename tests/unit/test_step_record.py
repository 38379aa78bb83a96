"""Numbers of a step: how far scores of a group are apart, and where the time went."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.groups import scored_candidate, scored_group
from videorl.step_record import disagreements, spreads, stage_times
from videorl.types import ScoredCandidate


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


def test_disagreement_counts_pairs_that_two_models_order_the_other_way_round() -> None:
    def rated(index: int, a: float, b: float) -> ScoredCandidate:
        one = scored_candidate(index, a)
        return replace(one, score=replace(one.score, by_model={"a": a, "b": b}))

    # b ties one of three pairs; of the other two it orders both the other way round.
    first = scored_group([], candidates=[rated(0, 0, 1), rated(1, 1, 1), rated(2, 2, 0)])
    second = scored_group([], candidates=[rated(0, 0, 0), rated(1, 1, 1)])
    assert disagreements([first, second]) == {"disagreement/a/b": (1.0 + 0.0) / 2}
    assert disagreements([scored_group([1.0, 2.0])]) == {}


def test_stages_add_up_to_the_step() -> None:
    metrics = {"time/wait_s": 1.0, "time/learn_s": 2.0, "learn/loss": 9.0}
    assert stage_times(metrics, 3.5) == {"time/other_s": 0.5, "time/step_s": 3.5}

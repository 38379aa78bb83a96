"""What SFT and Flow-RWR learn of a scored group, and with which weights."""

from __future__ import annotations

import math
from itertools import permutations

import pytest

from tests.groups import scored_candidate, scored_group
from videorl.objectives.flow_rwr import FlowRWR, reward_weights
from videorl.objectives.objective import CandidateObjective
from videorl.objectives.sft import SFT
from videorl.selection import AllPairs, BestVsWorst, Selection, SingleDimension
from videorl.types import ScoredGroup


def learned(
    group: ScoredGroup, objective: CandidateObjective, selection: Selection | None = None
) -> list[tuple[int, float]]:
    examples = objective.examples(selection or BestVsWorst())(group)
    assert all(one.prompt_embeds is group.prompt_embeds for one in examples)
    return [(one.candidates[0].candidate.index, one.weight) for one in examples]


def test_weights_by_hand() -> None:
    # exp(log 3) = 3 and exp(0) = 1 have the mean 2.
    found = reward_weights([math.log(3), 0.0], temperature=1.0, max_weight=5.0)
    assert found == pytest.approx([1.5, 0.5])
    halved = reward_weights([math.log(3), 0.0], temperature=0.5, max_weight=5.0)
    assert halved == pytest.approx([1.8, 0.2]), "9 and 1 have the mean 5"


def test_weights_have_the_mean_1_and_do_not_depend_on_a_shift() -> None:
    weights = reward_weights([0.3, -1.0, 2.5], temperature=0.7, max_weight=9.0)
    assert sum(weights) == pytest.approx(3.0)
    shifted = reward_weights([5000.3, 4999.0, 5002.5], temperature=0.7, max_weight=9.0)
    assert shifted == pytest.approx(weights)
    assert reward_weights([2.0, 2.0], temperature=0.7, max_weight=9.0) == [1.0, 1.0]


def test_weights_are_clipped() -> None:
    assert reward_weights([99.0, 0.0, 0.0], temperature=1.0, max_weight=2.0)[0] == 2.0


def test_flow_rwr_weighs_every_candidate_by_index() -> None:
    group = scored_group([0.0, math.log(3)])
    for order in permutations(group.candidates):
        found = learned(scored_group([], candidates=order), FlowRWR())
        assert found == [(0, pytest.approx(0.5)), (1, pytest.approx(1.5))]
    assert learned(scored_group([1.0]), FlowRWR()) == [], "nothing to compare with"
    assert learned(scored_group([]), FlowRWR()) == []


def test_flow_rwr_ranks_by_what_the_recipe_selects_by() -> None:
    candidates = [
        scored_candidate(0, 9.0, dimensions={"sharp": 0.0, "steady": 9.0}),
        scored_candidate(1, 1.0, dimensions={"sharp": math.log(3), "steady": 0.0}),
    ]
    by_one = SingleDimension(dimension="sharp")
    found = learned(scored_group([], candidates=candidates), FlowRWR(), by_one)
    assert [weight for _, weight in found] == pytest.approx([0.5, 1.5])


def test_sft_learns_from_the_chosen_once_or_from_all() -> None:
    group = scored_group([0.0, 3.0, 1.0])
    assert learned(group, SFT()) == [(1, 1.0)]
    assert learned(group, SFT(), AllPairs()) == [(1, 1.0), (2, 1.0)], "0 is never chosen"
    assert learned(group, SFT(sft_on="all")) == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert learned(scored_group([1.0, 1.0]), SFT()) == []

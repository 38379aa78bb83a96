"""Who is paired with whom."""

from __future__ import annotations

from itertools import permutations

import pytest

from tests.groups import scored_candidate, scored_group
from videorl.errors import ConfigError
from videorl.objectives.agreeing import Agreeing
from videorl.recipes.reading import load_recipe
from videorl.selection import (
    AllPairs,
    BestVsWorst,
    Dominating,
    Selection,
    SingleDimension,
    Weighted,
    all_pairs,
    best_vs_worst,
    dominating,
)
from videorl.types import (
    Candidate,
    PreferencePair,
    Prompt,
    Score,
    ScoredCandidate,
    ScoredGroup,
    WeightVersion,
)


def named(pairs: list[PreferencePair]) -> list[tuple[int, int]]:
    return [(pair.chosen.candidate.index, pair.rejected.candidate.index) for pair in pairs]


def indices(*totals: float, min_margin: float = 0.0) -> list[tuple[int, int]]:
    return named(best_vs_worst(scored_group(totals), min_margin=min_margin))


def judged(*scores: tuple[float, float]) -> ScoredGroup:
    """Return candidates scored on (sharp, steady), whose total is the sum."""
    candidates = [
        scored_candidate(index, sharp + steady, dimensions={"sharp": sharp, "steady": steady})
        for index, (sharp, steady) in enumerate(scores)
    ]
    return scored_group([], candidates=candidates)


def test_the_best_is_paired_with_the_worst() -> None:
    group = scored_group([0.25, 1.5, -0.5, 0.75])
    (pair,) = best_vs_worst(group)
    assert (pair.chosen, pair.rejected) == (group.candidates[1], group.candidates[2])
    assert pair.margin == 2.0
    assert pair.prompt is group.prompt
    assert pair.prompt_embeds is group.prompt_embeds


def test_ties_go_to_the_lower_index_at_both_ends() -> None:
    assert indices(1.0, 3.0, 1.0, 3.0) == [(1, 0)]


def test_arrival_order_changes_nothing() -> None:
    whole = scored_group([1.0, 3.0, 1.0, 3.0, 2.0])
    found = {
        (pair.chosen.candidate.index, pair.rejected.candidate.index)
        for order in permutations(whole.candidates)
        for pair in best_vs_worst(scored_group([], candidates=order))
    }
    assert found == {(1, 0)}


@pytest.mark.parametrize(
    ("totals", "reason"),
    [
        ([], "too_few_candidates"),
        ([1.0], "too_few_candidates"),
        ([0.5, 0.5, 0.5], "all_scores_equal"),
        ([0.5, 0.75], "margin_too_small"),
    ],
)
def test_a_group_without_a_pair_says_why(totals: list[float], reason: str) -> None:
    group = scored_group(totals)
    assert best_vs_worst(group, min_margin=0.5) == []
    assert BestVsWorst(min_margin=0.5).why_no_pair(group) == reason


def test_a_margin_of_exactly_the_minimum_is_enough() -> None:
    assert indices(0.5, 1.0, min_margin=0.5) == [(1, 0)]
    assert indices(0.5, 1.0, min_margin=0.51) == []


def test_the_recipe_binds_the_margin() -> None:
    rule = BestVsWorst(min_margin=0.5)
    assert rule(scored_group([0.0, 0.25])) == []
    assert len(rule(scored_group([0.0, 0.75]))) == 1


def test_all_pairs_are_every_two_whose_totals_differ_enough() -> None:
    assert named(all_pairs(scored_group([1.0, 3.0, 2.0]))) == [(1, 0), (1, 2), (2, 0)]
    assert named(all_pairs(scored_group([1.0, 3.0, 2.0]), min_margin=2.0)) == [(1, 0)]
    assert named(all_pairs(scored_group([1.0, 1.0, 2.0]))) == [(2, 0), (2, 1)]
    assert all_pairs(scored_group([1.0])) == []


def test_the_chosen_dominates_in_every_dimension() -> None:
    # Best against worst would be 1 against 3, which is sharper; 2 dominates 3, 0 and 2 dominate 4.
    group = judged((1.0, 1.0), (0.0, 4.0), (2.0, 1.0), (0.5, 0.0), (1.0, 0.0))
    assert named(best_vs_worst(group)) == [(1, 3)]
    (pair,) = dominating(group)
    assert named([pair]) == [(2, 3)]
    assert pair.margin == 2.5
    assert named(dominating(group, min_margin=2.5)) == [(2, 3)]
    assert dominating(group, min_margin=2.6) == []


def test_dominance_follows_the_weights_of_the_recipe() -> None:
    # Unweighted, 0 dominates 1. With steadiness counted as bad, 1 dominates 0.
    group = judged((1.0, 2.0), (1.0, 0.0))
    rule = Dominating()
    assert named(rule(group)) == [(0, 1)]
    turned = scored_group(
        [],
        candidates=[
            scored_candidate(n, -total, dimensions={"sharp": 1.0, "steady": total})
            for n, total in enumerate((2.0, 0.0))
        ],
    )
    recipe = load_recipe(
        "moving_shapes",
        [
            "selection={rule: dominating}",
            "rewards.0.dimension_weights={sharp: 0.5, steady: -1}",
        ],
    )
    assert named(recipe.pair_rule(turned)) == [(1, 0)]
    # What has no weight does not count, in dominance as in the total.
    recipe.rewards[0].dimension_weights = {"sharp": 1.0}
    sharper = scored_group(
        [],
        candidates=[
            scored_candidate(0, 1.0, dimensions={"sharp": 1.0, "steady": 0.0}),
            scored_candidate(1, 0.0, dimensions={"sharp": 0.0, "steady": 9.0}),
        ],
    )
    assert named(recipe.pair_rule(sharper)) == [(0, 1)]
    assert rule(sharper) == []


def test_an_equal_dimension_does_not_hinder_dominance_but_equal_totals_do() -> None:
    assert named(dominating(judged((1.0, 0.0), (1.0, 0.5)))) == [(1, 0)]
    assert dominating(judged((1.0, 0.5), (1.0, 0.5))) == []


def test_of_equal_margins_the_lower_indices_dominate() -> None:
    group = judged((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    for order in permutations(group.candidates):
        assert named(dominating(scored_group([], candidates=order))) == [(1, 0)]


def test_a_group_in_which_none_dominates_says_so() -> None:
    rule = Dominating(min_margin=0.6)
    opposed = judged((1.0, 0.0), (0.0, 2.0))
    assert rule(opposed) == []
    assert rule.why_no_pair(opposed) == "none_dominates"
    assert rule.why_no_pair(judged((1.0, 0.0), (1.0, 0.5))) == "margin_too_small"


@pytest.mark.parametrize(
    ("rule", "expected", "margin"),
    [
        (SingleDimension(dimension="sharp"), (0, 1), 3.0),
        (Weighted(weights={"sharp": 1.0, "steady": 0.5}), (2, 1), 2.0),
        (Weighted(weights={"sharp": -1.0}), (1, 0), 3.0),
    ],
)
def test_rules_that_rank_by_dimensions(
    rule: Selection, expected: tuple[int, int], margin: float
) -> None:
    # sharp + steady / 2: 3, 2, 4
    (pair,) = rule(judged((3.0, 0.0), (0.0, 4.0), (2.0, 4.0)))
    assert named([pair]) == [expected]
    assert pair.margin == margin


def test_equal_in_the_dimension_that_counts() -> None:
    rule = SingleDimension(dimension="sharp")
    group = judged((1.0, 0.0), (1.0, 4.0))
    assert rule(group) == []
    assert rule.why_no_pair(group) == "all_scores_equal"


def test_an_unknown_dimension_is_named() -> None:
    rule = SingleDimension(dimension="taste")
    with pytest.raises(ConfigError, match=r"taste; those that are scored: sharp, steady"):
        rule(judged((1.0, 0.0), (0.0, 4.0)))


def rated(index: int, total: float, **by_model: float) -> ScoredCandidate:
    version = WeightVersion(0, "")
    candidate = Candidate(0, Prompt(0, "a"), index, index, version, None, None)
    return ScoredCandidate(candidate, Score({}, total, by_model=by_model))


def test_only_pairs_on_which_all_named_models_agree_are_taken() -> None:
    """The total prefers 1 to 2 to 0; the model `b` prefers 2 to 1, and ties 1 and 0."""
    scored = (rated(0, 0.0, a=0, b=1), rated(1, 3.0, a=3, b=1), rated(2, 2.0, a=2, b=4))
    group = ScoredGroup(Prompt(0, "a"), None, scored, {})
    every, best = AllPairs(agree=["b"]), BestVsWorst(agree=["a", "b"])

    def taken(rule: Selection) -> list[tuple[int, int]]:
        found = Agreeing(inner=rule)(group)
        return [(pair.chosen.candidate.index, pair.rejected.candidate.index) for pair in found]

    assert taken(every) == [(2, 0)], "1 > 2 is turned round by b, and 1 > 0 is a tie of it"
    assert taken(AllPairs(agree=["a"])) == [(1, 0), (1, 2), (2, 0)]
    assert taken(best) == []
    assert Agreeing(inner=best).why_no_pair(group) == "models_disagree"
    alone = ScoredGroup(Prompt(0, "a"), None, scored[:1], {})
    assert Agreeing(inner=best).why_no_pair(alone) == "too_few_candidates"


def test_a_recipe_says_who_must_agree() -> None:
    rewards = "rewards=[{name: moving_shapes}, {name: moving_shapes, label: watcher, weight: 0}]"
    recipe = load_recipe("moving_shapes", [rewards, "selection.agree=[watcher]"])
    assert isinstance(recipe.pair_rule, Agreeing)
    assert not isinstance(load_recipe("moving_shapes").pair_rule, Agreeing)
    for settings, said in (
        (["selection.agree=[moving_shapes]"], "agree needs several rewards"),
        ([rewards, "selection.agree=[other]"], r"selection\.agree\.0 must be one of"),
        ([rewards, "selection.agree=[watcher]", "objective.name=flow_rwr"], "not from pairs"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_recipe("moving_shapes", settings)

"""Strengths by hand; their intervals draw prompts; what cannot be said of them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from tests.studies import answer, paper_study
from videorl.judging.strengths import clusters_of, strengths, strengths_of
from videorl.judging.study import Study


def test_strengths_of_two_groups_are_log_odds() -> None:
    wins_CGG = np.zeros((10, 2, 2))
    wins_CGG[:7, 0, 1] = 1
    wins_CGG[7:9, 1, 0] = 1
    wins_CGG[9] = [[0, 0.5], [0.5, 0]]
    (first, second), missing = strengths(["x", "y"], wins_CGG)
    assert missing == ()
    assert (first.group, second.group) == ("x", "y")
    odds = math.log((7.5 + 0.5) / (2.5 + 0.5))
    assert first.strength - second.strength == pytest.approx(odds, abs=1e-6)
    assert first.low is not None
    assert first.high is not None
    assert first.low < first.strength < first.high
    assert strengths(["x", "y"], wins_CGG)[0] == (first, second)
    always, _ = strengths(["x", "y"], wins_CGG[:7])
    assert np.isfinite([found.strength for found in always]).all()


def test_groups_that_met_nobody_have_no_strength() -> None:
    wins_CGG = np.zeros((3, 6, 6))
    wins_CGG[0, 0, 1] = wins_CGG[1, 1, 3] = wins_CGG[2, 4, 5] = 1
    found, missing = strengths(list("abcdef"), wins_CGG)
    assert [strength.group for strength in found] == ["a", "b", "d"]
    (said,) = missing
    assert said.startswith("No strengths of e, f: no answers connect them with a, b, d")
    assert strengths(list("ab"), np.zeros((1, 2, 2))) == ((), ())


def test_a_fit_that_does_not_end_is_said() -> None:
    wins_GG = np.array([[0, 1, 0], [0, 0, 1], [7e6, 0, 0]])  # a circle: each beats the next
    found, missing = strengths(list("abc"), wins_GG[None])
    assert found == ()
    assert missing == ("No strengths: their fit does not converge; wins and ties stand.",)
    wins_CGG = np.stack([wins_GG, wins_GG.T])  # together even, but not where only one is drawn
    found, missing = strengths(list("abc"), wins_CGG)
    assert [strength.low for strength in found] == [None] * 3
    assert missing == ("No intervals: the fit does not converge on every sample of the bootstrap.",)


def with_prompts(study: Study, prompts: str) -> Study:
    pairs = zip(study.pairs, prompts, strict=True)
    new = tuple(dataclasses.replace(pair, prompt=prompt.strip()) for pair, prompt in pairs)
    return dataclasses.replace(study, pairs=new)


def test_pairs_of_a_prompt_or_of_a_video_are_one_cluster() -> None:
    study = with_prompts(paper_study([("x", "y")] * 5), "ab a ")
    shared = dataclasses.replace(study.pairs[4], a=study.pairs[2].b)
    clusters = clusters_of([*study.pairs[:4], shared])
    first, second, third, fourth, fifth = (clusters[pair.id] for pair in study.pairs)
    assert (first, third) == (fourth, fifth)
    assert len({first, second, third}) == 3


def test_intervals_draw_prompts_not_pairs() -> None:
    """Twenty pairs of a prompt say no more than a pair, where they all say the same."""
    once = with_prompts(paper_study([("x", "y")] * 4), "abcd")
    often = with_prompts(paper_study([("x", "y")] * 80), "abcd" * 20)
    widths = []
    for study, times in ((once, 1), (often, 20)):
        outcomes = "AAAB" * times
        said = [
            (answer(study, pair.id, "anna", Overall=outcome), outcome)
            for pair, outcome in zip(study.pairs, outcomes, strict=True)
        ]
        first = strengths_of(study, said)[0][0]
        assert first.low is not None
        assert first.high is not None
        widths.append(first.high - first.low)
    # Four prompts stay four; the prior of half a win counts for less against more answers.
    assert widths[1] > widths[0]
    # Of 80 pairs it would be 2 * 1.96 standard errors of half the log odds.
    assert widths[1] > 2 * (1.96 / math.sqrt(80 * 0.75 * 0.25))

"""Agreement and strengths by hand, and what a report says."""

from __future__ import annotations

import dataclasses
import re
import sys

import pytest

from tests.studies import answer, paper_study
from videorl.errors import ConfigError
from videorl.judging.results import Duel, agreement, results_of, text_of


def test_alpha_by_hand() -> None:
    study = paper_study([("x", "y")] * 4)
    said = [
        (answer(study, f"p0000{pair}", person, Overall=outcome), outcome)
        for person, outcomes in (("anna", "AABB"), ("ben", "AABA"))
        for pair, outcome in enumerate(outcomes)
    ]
    # Coincidences: AA 4, BB 2, AB 1 + 1; n = 8, n_A = 5, n_B = 3: 1 - 7 * 2 / (2 * 5 * 3).
    assert agreement(said) == pytest.approx(1 - 7 * 2 / 30)
    assert agreement(said[:4]) is None, "one person agrees with nobody"
    assert agreement([pair for pair in said if pair[1] == "A"]) is None
    assert agreement([]) is None


def test_results_follow_the_groups_not_the_sides() -> None:
    study = paper_study([("new", "old"), ("old", "new"), ("old", "new"), ("new", "new")])
    study = dataclasses.replace(study, mode="dimensions", answers_per_pair=2)
    one = {"MQ": "same", "TA": "invalid"}
    said = [
        answer(study, "p00000", "anna", VQ="A", **one),
        answer(study, "p00001", "anna", VQ="B", **one),
        answer(study, "p00001", "ben", VQ="A", **one),
        answer(study, "p00002", "anna", VQ="same", **one),
        answer(study, "p00003", "anna", VQ="A", **one),
    ]
    results = results_of(study, said)
    assert (results.num_answers, results.num_pairs_done) == (5, 1)
    assert results.by_annotator == {"anna": 4, "ben": 1}
    quality, motion, text = results.questions
    assert quality.duels == (Duel("new", "old", 2, 1, 1),)
    assert motion.duels == (Duel("new", "old", 0, 4, 0),)
    assert motion.strengths[0].strength == pytest.approx(0, abs=1e-9)
    assert (text.num_answers, text.num_cannot_tell) == (0, 5)
    assert text.strengths == ()
    assert quality.strengths[0].group == "new"
    said_text = text_of(results)
    assert "| new   | old    | 2    | 1    | 1      |" in said_text
    assert quality.missing == ()
    assert "0 answers, 5 could not tell; Krippendorff's alpha does not exist." in said_text


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    study = paper_study([("x", "y")])
    said = [answer(study, "p00000", "anna", Overall="A")]
    monkeypatch.setitem(sys.modules, "krippendorff", None)
    with pytest.raises(ConfigError, match=r"needs krippendorff, .* pip install 'videorl\[judge\]'"):
        results_of(study, said)


def test_what_is_missing_is_said() -> None:
    study = paper_study([("a", "b"), ("c|c", "d"), ("a", "b")])
    said = [answer(study, f"p0000{pair}", "anna", Overall="A") for pair in range(3)]
    text = text_of(results_of(study, said))
    assert "- No strengths of c|c, d: no answers connect them with a, b" in text
    assert "| c\\|c  | d" in text, "a bar in a name ends no cell"
    text = text_of(results_of(study, said[:1]))
    assert "- No intervals: all answers are on videos of the same prompt." in text
    assert re.search(r"\| a +\| \+0\.\d{3} +\| — +\| — +\|", text)

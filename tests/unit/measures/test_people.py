"""Answers of judging pages against measures of the same videos."""

from __future__ import annotations

from pathlib import Path

import pytest

from videorl.errors import ConfigError
from videorl.judging.answers import Answers
from videorl.judging.questions import OVERALL
from videorl.judging.study import Answer, Side, Study, StudyPair, write_study
from videorl.measures.people import agreements, read_verdicts


def study(folder: Path, said: dict[str, list[str]]) -> Path:
    """Write a study of a pair per key, whose answers are listed."""
    folder.mkdir()
    sides = {name: [Side(str(folder / f"{name}-{x}.mp4"), x) for x in "ab"] for name in said}
    pairs = tuple(StudyPair(name, "p", *both) for name, both in sides.items())
    made = Study("overall", 0, 3, pairs)
    write_study(folder, made)
    with Answers(folder, made) as answers:
        for name, choices in said.items():
            for person, choice in enumerate(choices):
                answers.add(Answer(name, f"p{person}", {OVERALL: choice}, True, "A", 1.0, 1.0))
    return folder


def test_measures_against_the_majority(tmp_path: Path) -> None:
    place = study(tmp_path / "s", {"1": ["A", "A", "B"], "2": ["B"], "3": ["A", "B"]})
    verdicts = read_verdicts([place])
    assert [verdict.label for verdict in verdicts] == [1, -1, 0]
    values = {"1-a": 2.0, "1-b": 1.0, "2-a": 5.0, "2-b": 1.0, "3-a": 1.0, "3-b": 1.0}
    numbers = {place.resolve() / f"{name}.mp4": {"m": v} for name, v in values.items()}
    (found,) = agreements(verdicts, numbers, lambda _: 1)
    assert (found.measure, found.question) == ("m", OVERALL)
    assert found.accuracy.without_ties == 0.5  # right on 1, wrong on 2
    assert (found.accuracy.num_pairs, found.accuracy.num_human_ties) == (3, 1)
    (turned,) = agreements(verdicts, numbers, lambda _: -1)  # less is better
    assert turned.accuracy.without_ties == 0.5


def test_answers_about_other_videos(tmp_path: Path) -> None:
    verdicts = read_verdicts([study(tmp_path / "s", {"1": ["A"]})])
    with pytest.raises(ConfigError, match="none of 1 answers is about two of these clips"):
        agreements(verdicts, {tmp_path / "other.mp4": {"m": 1.0}}, lambda _: 1)

"""What an evaluation during training finds, in numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from videorl.errors import RunFolderError
from videorl.evaluation.readings import (
    Reading,
    change,
    metrics_of,
    path_of_reading,
    read_readings,
    reading_of,
    truncate,
    write_reading,
)
from videorl.evaluation.record import group_from_json, group_to_json
from videorl.types import Candidate, Prompt, Score, ScoredCandidate, ScoredGroup, WeightVersion

VERSION = WeightVersion(10, "abc")


def group(index: int, *totals: float, **unseen: float) -> ScoredGroup:
    prompt = Prompt(index, f"prompt {index}")
    candidates = tuple(
        ScoredCandidate(
            Candidate(0, prompt, place, place, VERSION, None, None),
            Score({"motion": total / 2}, total),
            unseen,
        )
        for place, total in enumerate(totals)
    )
    return ScoredGroup(prompt, None, candidates, {})


def reading(step: int, **values: list[float]) -> Reading:
    (size,) = {len(each) for each in values.values()}
    return Reading(step, "abc", tuple(range(size)), values)


def test_samples_are_averaged_by_prompt() -> None:
    found = reading_of(VERSION, [group(3, 1.0, 2.0, edges=0.5), group(5), group(7, 4.0, 0.0)])
    values = {"reward/total": [1.5, 2.0], "reward/motion": [0.75, 1.0]}
    assert found == Reading(10, "abc", (3, 7), {**values, "unseen/edges": [0.5, None]})
    assert reading_of(VERSION, [group(1)]) is None


def test_a_value_that_a_prompt_lacks_is_that_of_the_others(tmp_path: Path) -> None:
    """A prompt that lost a candidate has no diversity; the others still have theirs."""
    base, later = reading(0, a=[1.0, 2.0, 5.0]), Reading(4, "", (0, 1, 2), {"a": [None, 3.0, 6.0]})
    assert later.mean("a") == 4.5
    found = change(base, later, "a")
    assert found is not None and found.mean == 1.0
    nothing = Reading(6, "", (0,), {"a": [None]})
    assert change(base, nothing, "a") is None
    assert "evaluation/a" not in metrics_of(base, nothing)
    write_reading(tmp_path, later)
    assert read_readings(tmp_path) == [later]


def test_what_each_model_says_in_all_outlives_a_file() -> None:
    """`model/…` is what the guard watches; groups of an interrupted evaluation come from a file."""
    (scored,) = group(3, 1.0).candidates
    score = Score({"a.x": 1.0, "b.x": 2.0}, 3.0, by_model={"a": 1.0, "b": -2.0})
    made = ScoredGroup(Prompt(3, ""), None, (replace(scored, score=score),), {})
    for each in (made, group_from_json(group_to_json(made))):
        found = reading_of(VERSION, [each])
        assert found is not None
        assert (found.values["model/a"], found.values["model/b"]) == ([1.0], [-2.0])


def test_a_change_is_paired_by_prompt() -> None:
    base = Reading(0, "", (1, 2, 3), {"a": [1.0, 10.0, 100.0]})
    later = Reading(5, "", (3, 1), {"a": [101.0, 2.0]})
    found = change(base, later, "a")
    assert found is not None
    # Both differences are 1, whatever is drawn; the prompts themselves differ by 99.
    assert (found.mean, found.low, found.high) == (1.0, 1.0, 1.0)
    assert change(base, later, "b") is None
    assert change(base, Reading(5, "", (4,), {"a": [1.0]}), "a") is None


def test_the_band_is_that_of_the_difference_around_the_mean() -> None:
    base, later = reading(0, a=[0.0] * 4), reading(10, a=[1.0, 3.0, 3.0, 5.0])
    found = metrics_of(base, later)
    moved = change(base, later, "a")
    assert moved is not None
    assert (found["evaluation/step"], found["evaluation/a"]) == (10.0, 3.0)
    # The base is 0 for every prompt, so that differences are the values themselves.
    assert found["evaluation/a_low"] == pytest.approx(moved.low)
    assert found["evaluation/a_high"] == pytest.approx(moved.high)
    assert 1.0 <= moved.low < 3.0 < moved.high <= 5.0
    assert metrics_of(base, base)["evaluation/a_low"] == 0.0
    single = metrics_of(base, Reading(10, "", (0,), {"a": [1.0]}))
    assert single["evaluation/a"] == 1.0
    assert "evaluation/a_low" not in single, "the interval over one prompt would be a point"


def test_files_come_back_in_order_and_later_ones_are_set_aside(tmp_path: Path) -> None:
    written = [reading(step, a=[0.5, float(step)]) for step in (20, 0, 10)]
    for one in written:
        write_reading(tmp_path, one)
    assert read_readings(tmp_path) == [written[1], written[2], written[0]]
    truncate(tmp_path, 10)
    assert [one.step for one in read_readings(tmp_path)] == [0, 10]
    moved = tmp_path / "superseded" / path_of_reading(tmp_path, 20).relative_to(tmp_path)
    assert moved.is_file()
    path_of_reading(tmp_path, 10).write_text('{"step": 10')
    with pytest.raises(RunFolderError, match=r"step-000010\.json is damaged .* remove it"):
        read_readings(tmp_path)

"""Means, differences and p-values of a comparison, by hand and against scipy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from videorl.data.clips import ClipSource
from videorl.evaluation.corrections import flipped_signs, holm, student_p
from videorl.evaluation.statistics import Interval
from videorl.measures.corrections import corrected
from videorl.measures.diversity import by_prompt, mean_pairwise_distance
from videorl.measures.folders import Folder
from videorl.measures.measuring import Measured
from videorl.measures.results import Number, Report, Row, mean_of_prompts, means
from videorl.measures.seeds import method_of, over_seeds
from videorl.measures.win_rates import WinRate


def folder(label: str, prompts: Sequence[str]) -> Folder:
    keys = tuple((str(number), prompt) for number, prompt in enumerate(prompts))
    return Folder(label, Path(label), ClipSource(keys, lambda _: iter(())), keys)


def measured(found: Folder, values: Sequence[float]) -> Measured:
    numbers = Measured()
    numbers.values["x"] = {
        key: np.array([value]) for key, value in zip(found.keys, values, strict=True)
    }
    return numbers


def test_means_and_differences_weigh_prompts_alike() -> None:
    a, b = folder("a", ["p", "p", "p", "q"]), folder("b", ["p", "p", "p", "q"])
    found = means([a, b], {"a": measured(a, [1, 1, 1, 5]), "b": measured(b, [2, 2, 2, 10])}, "x")
    assert found["a"].value == 3.0  # over clips it would be 2
    assert found["b"].difference is not None
    assert found["b"].difference.mean == found["b"].value - found["a"].value == 3.0


def test_clips_of_a_prompt_are_no_evidence_of_their_own() -> None:
    values = np.random.default_rng(0).standard_normal(50)
    found = mean_of_prompts(values.tolist())
    assert found.mean == pytest.approx(values.mean())
    width = values.std() / np.sqrt(50) * 2 * 1.96
    assert found.high - found.low == pytest.approx(width, rel=0.05)


def test_flipped_signs() -> None:
    assert flipped_signs([1.0, 2.0, 3.0]) == 2 / 8  # all up, all down
    assert flipped_signs([1.0, -1.0]) == 1.0
    values = np.random.default_rng(1).normal(0.4, 1.0, 40)
    exact = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=20_000, rng=0
    ).pvalue
    assert flipped_signs(values) == pytest.approx(exact, abs=0.01)
    with pytest.raises(ValueError, match="finite"):
        flipped_signs([1.0, np.nan])


def test_holm_by_hand_and_against_scipy() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []
    # Never more than Bonferroni, never less than Benjamini and Hochberg.
    values = np.random.default_rng(2).uniform(size=20) ** 3
    found = np.array(holm(values.tolist()))
    assert (found <= np.minimum(20 * values, 1.0) + 1e-12).all()
    assert (found >= stats.false_discovery_control(values) - 1e-12).all()


@pytest.mark.parametrize("size", [2, 3, 5, 30])
def test_student(size: int) -> None:
    values = np.random.default_rng(size).normal(0.7, 1.0, size)
    _, expected = stats.ttest_1samp(values, 0.0)
    assert student_p(values) == pytest.approx(expected, rel=1e-5)
    assert student_p([1.0, 1.0]) == 0.0 and student_p([0.0, 0.0]) == 1.0


def test_all_comparisons_of_a_report_are_one_family() -> None:
    row = Row("b", 2, 2, {"x": Number(1.0, p=0.01), "y": Number(1.0, p=0.04), "z": Number(2.0)})
    half = Interval(0.5, 0.4, 0.6)
    rate = WinRate("b", "m", "total", 0.5, 0.0, 0.5, half, 0.1, 2, 2, 0, 0.03)
    found = corrected(Report([Row("a", 2, 2, {}), row], [rate]))
    numbers = found.rows[1].numbers
    assert numbers["x"].p_holm == pytest.approx(0.03)
    assert numbers["y"].p_holm == pytest.approx(0.06)
    assert numbers["z"].p_holm is None
    assert found.win_rates[0].p_holm == pytest.approx(0.06)


def test_seeds_become_a_row() -> None:
    assert [method_of(name) for name in ("a b#3", "a")] == ["a b", "a"]
    base = Row("base", 4, 2, {"FVD": Number(10.0)})
    seeds = [Row(f"tuned#{n}", 4, 2, {"FVD": Number(value)}) for n, value in enumerate((8.0, 6.0))]
    (row,) = over_seeds([base, *seeds], [])
    assert (row.method, row.num_seeds, row.value.mean) == ("tuned", 2, 7.0)
    assert row.difference is not None and row.difference.mean == -3.0
    # Student's t with one degree of freedom: 12.706 × √2 / √2.
    assert row.value.high - row.value.mean == pytest.approx(12.706)
    _, expected = stats.ttest_1samp([-2.0, -4.0], 0)
    assert row.p == row.p_holm == pytest.approx(expected)
    assert over_seeds([base, seeds[0]], []) == []
    (equal,) = over_seeds([base, seeds[0], replace(seeds[0], label="tuned#2")], [])
    assert equal.value.mean == 8.0 and equal.difference is None and equal.p is None
    # Equal but for the rounding of a sum: no interval of no width, and no p-value of 0.
    rounded = Row("tuned#2", 4, 2, {"FVD": Number(float(np.nextafter(8.0, 9.0)))})
    (equal,) = over_seeds([base, seeds[0], rounded], [])
    assert equal.difference is None and equal.p is None


def test_diversity_within_a_prompt() -> None:
    assert mean_pairwise_distance([[1.0, 0.0], [0.0, 2.0]]) == pytest.approx(1.0)
    assert mean_pairwise_distance([[1.0, 1.0], [2.0, 2.0]]) == pytest.approx(0.0)
    values = np.random.default_rng(0).standard_normal((5, 4))
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    pairs = [1.0 - unit[i] @ unit[j] for i in range(5) for j in range(i)]
    assert mean_pairwise_distance(values) == pytest.approx(np.mean(pairs))
    with pytest.raises(ValueError, match="zero"):
        mean_pairwise_distance([[1.0, 0.0], [0.0, 0.0]])
    clips = folder("a", ["p", "q", "p"])
    features = {key: np.eye(3)[number] for number, key in enumerate(clips.keys)}
    assert by_prompt(clips, features) == {clips.keys[0]: pytest.approx([1.0])}  # q has one clip

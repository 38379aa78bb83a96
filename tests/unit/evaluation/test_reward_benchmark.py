from pathlib import Path

import pytest

from videorl.data.benchmarks import Benchmark, Pair, Rating
from videorl.data.clips import Key
from videorl.data.score_reading import ScoredClips
from videorl.errors import ConfigError
from videorl.evaluation.reward_benchmark import (
    MAPPINGS,
    evaluate_model,
    format_agreements,
    map_dimensions,
    to_json,
)
from videorl.rewards.vision_reward.questions import checklist
from videorl.types import Score

DIMENSIONS = ("VQ", "MQ", "TA", "Overall")


def key(name: str) -> Key:
    return f"{name}.mp4", "a cat "


def score(visual: float, motion: float, text: float) -> Score:
    dimensions = {"visual_quality": visual, "motion_quality": motion, "text_alignment": text}
    return Score(dimensions, visual + motion + text)


def labels(*values: int) -> dict[str, int]:
    return dict(zip(DIMENSIONS, values, strict=True))


BENCHMARK = Benchmark(
    "videogen_rewardbench",
    Path("folder"),
    DIMENSIONS,
    (
        Pair(key("a"), key("b"), labels(1, 0, -1, 1)),
        Pair(key("c"), key("b"), {"VQ": 1, "TA": 1, "Overall": 1}),
        Pair(key("a"), key("broken"), labels(1, 1, 1, 1)),
        Pair(key("lost"), key("b"), labels(1, 1, 1, 1)),
    ),
)
# The prompts of a file of scores are stripped.
SCORED = ScoredClips(
    "video_reward",
    "mine",
    {
        ("a.mp4", "a cat"): score(3.0, 1.0, 0.0),
        ("b.mp4", "a cat"): score(2.0, 1.5, 1.0),
        ("c.mp4", "a cat"): score(1.0, 0.0, 2.0),
        ("broken.mp4", "a cat"): "broken.mp4: no video in it",
    },
)


def test_every_dimension_is_judged_by_its_own_scores() -> None:
    mapping = map_dimensions(BENCHMARK, "video_reward", {})
    found, rows = evaluate_model(BENCHMARK, SCORED, mapping)
    by_dimension = {agreement.dimension: agreement for agreement in found}
    assert list(by_dimension) == list(DIMENSIONS)
    # Margins of visual quality: +1 and -1, people prefer A twice.
    visual = by_dimension["VQ"].accuracy
    assert visual is not None and visual.without_ties == 0.5
    # Text alignment: -1 and +1, as people say.
    text = by_dimension["TA"].accuracy
    assert text is not None and text.without_ties == 1.0
    # People left the motion of the second pair open; the first is a tie, and becomes one at 0.5.
    motion = by_dimension["MQ"].accuracy
    assert motion is not None and (motion.with_ties, motion.num_pairs) == (1.0, 1)
    assert motion.tie_threshold == 0.5
    # Totals: 4 against 4.5, and 3 against 4.5.
    overall = by_dimension["Overall"].accuracy
    assert overall is not None and overall.without_ties == 0.0
    assert {agreement.num_skipped for agreement in found} == {2}
    first = rows[0]
    assert (first.human, first.score_a, first.score_b, first.skipped) == (1, 3.0, 2.0, None)
    assert [row.skipped for row in rows[2:4]] == [
        "broken.mp4: no video in it",
        "lost.mp4: not scored",
    ]


def test_the_results_as_table_and_json() -> None:
    mapping = map_dimensions(BENCHMARK, "video_reward", {"VQ": ("visual_quality",)})
    found, _ = evaluate_model(BENCHMARK, SCORED, mapping)
    title, header, row = format_agreements(BENCHMARK, found).splitlines()
    assert title == "videogen_rewardbench: 5 videos"
    assert header.split("  ")[0] == "model"
    assert row.split() == ["mine", "VQ", "visual_quality", "2", "2", "0.00%", "50.00%"]
    written = to_json(BENCHMARK, found)
    assert written["num_pairs"] == 4
    assert written["results"][0]["accuracy"]["without_ties"] == 0.5


def test_a_choice_of_dimensions_sums_them() -> None:
    chosen = {"VQ": ("visual_quality", "motion_quality")}
    mapping = map_dimensions(BENCHMARK, "unknown_model", chosen)
    _, rows = evaluate_model(BENCHMARK, SCORED, mapping)
    assert (rows[0].score_a, rows[0].score_b) == (4.0, 3.5)


def test_ratings_are_compared_by_rank() -> None:
    ratings = tuple(
        Rating(key(name), {"visual quality": value})
        for name, value in (("a", 1), ("b", 2), ("c", 3), ("broken", 4))
    )
    benchmark = Benchmark("video_feedback", Path("folder"), ("visual quality",), ratings=ratings)
    mapping = map_dimensions(benchmark, "any", {"visual quality": ("visual_quality",)})
    found, rows = evaluate_model(benchmark, SCORED, mapping)
    assert found[0].spearman == pytest.approx(-1.0)
    assert (found[0].num_used, found[0].num_skipped, found[0].accuracy) == (3, 1, None)
    assert rows[0].video_b is None
    assert format_agreements(benchmark, found).splitlines()[-1].split()[-1] == "-1.0000"


def test_benchmarks_of_totals_take_any_model() -> None:
    pairs = (Pair(key("a"), key("b"), {"Overall": -1}),)
    benchmark = Benchmark("genai_bench", Path("folder"), ("Overall",), pairs)
    assert map_dimensions(benchmark, "any_model", {}) == {"Overall": ("total",)}


def test_what_is_not_known_of_a_model_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"no known scores of any stand for MQ, .*--map 'VQ="):
        map_dimensions(BENCHMARK, "any", {})
    with pytest.raises(ConfigError, match="has no dimension 'vq'; it has VQ, MQ, TA, Overall"):
        map_dimensions(BENCHMARK, "video_reward", {"vq": ("visual_quality",)})
    with pytest.raises(ConfigError, match="mine scores no 'quality'; it scores visual_quality"):
        evaluate_model(BENCHMARK, SCORED, {"VQ": ("quality",)})


def test_every_dimension_of_vision_reward_stands_for_one_of_the_benchmark() -> None:
    mapping = MAPPINGS["videogen_rewardbench"]["vision_reward"]
    named = sorted(name for names in mapping.values() for name in names)
    assert named == sorted({question.dimension for question in checklist()})

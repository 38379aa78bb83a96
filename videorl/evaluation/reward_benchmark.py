"""A reward model's scores compared with the human judgements of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from videorl.data.benchmarks import OVERALL, Benchmark
from videorl.data.clips import Key
from videorl.data.score_reading import ScoredClips
from videorl.errors import ConfigError
from videorl.evaluation.agreement import PairwiseAccuracy, pairwise_accuracy, spearman
from videorl.evaluation.text_table import text_table
from videorl.types import Score

TOTAL = "total"
"""Stands for `Score.total` among the names of dimensions."""

_KLING = {"VQ": ("visual_quality",), "MQ": ("motion_quality",), "TA": ("text_alignment",)}
MAPPINGS: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "videogen_rewardbench": {
        "video_reward": _KLING,
        "moving_shapes": _KLING,
        "video_score": {
            "VQ": ("visual_quality",),
            "MQ": ("temporal_consistency", "dynamic_degree"),
            "TA": ("text_to_video_alignment",),
        },
        "vision_reward": {
            "VQ": ("composition", "quality", "fidelity", "safety"),
            "MQ": ("stability", "dynamic", "preservation", "physics"),
            "TA": ("alignment",),
        },
        "laion_aesthetic": {},
        "pick_score": {},
        "hps_v2": {},
        "image_reward": {},
    },
    "video_feedback": {
        "video_score": {
            "visual quality": ("visual_quality",),
            "temporal consistency": ("temporal_consistency",),
            "dynamic degree": ("dynamic_degree",),
            "text-to-video alignment": ("text_to_video_alignment",),
            "factual consistency": ("factual_consistency",),
        },
    },
}
"""Benchmark -> model -> dimension of the benchmark -> dimensions of the model, which are summed.

`Overall` is the total of every model. Benchmarks that ask for nothing else need no line.
"""


@dataclass(frozen=True, slots=True)
class Judged:
    """One row of the results: human and model judgement of a pair, or of a rated video."""

    model: str
    dimension: str
    video_a: str
    video_b: str | None
    """None for a rated video."""
    prompt: str
    human: float
    """1, 0 or -1 for a pair (A is better, equal, B is better); the rating of a video."""
    score_a: float | None
    score_b: float | None
    skipped: str | None
    """Why there is no score."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How well one model agrees with people on one dimension."""

    model: str
    dimension: str
    scored_by: str
    """The model's dimensions, joined with +."""
    num_used: int
    num_skipped: int
    """Pairs or videos left out because a video has no score."""
    accuracy: PairwiseAccuracy | None
    """Of pairs; None where people rated single videos."""
    spearman: float | None
    """Of ratings; None where people compared pairs, or all scores are equal."""


def map_dimensions(
    benchmark: Benchmark, model: str, chosen: Mapping[str, tuple[str, ...]]
) -> dict[str, tuple[str, ...]]:
    """Return which dimensions of the model stand for which of the benchmark, in its order.

    Args:
        benchmark: Its dimensions are mapped.
        model: Name of the reward model.
        chosen: The user's own mapping; it replaces the known one.

    Raises:
        ConfigError: The benchmark has no such dimension, or nothing is known of the model.
    """
    known = MAPPINGS.get(benchmark.name, {}).get(model, {})
    overall = {OVERALL: (TOTAL,)} if OVERALL in benchmark.dimensions else {}
    if unknown := sorted(set(chosen) - set(benchmark.dimensions)):
        raise ConfigError(
            f"{benchmark.name} has no dimension {unknown[0]!r}; "
            f"it has {', '.join(benchmark.dimensions)}"
        )
    others = set(benchmark.dimensions) - {OVERALL}
    if others and not chosen and model not in MAPPINGS.get(benchmark.name, {}):
        example = next(name for name in benchmark.dimensions if name != OVERALL)
        raise ConfigError(
            f"no known scores of {model} stand for {', '.join(sorted(others))} of "
            f"{benchmark.name}; name them, e.g. --map '{example}=visual_quality+stability'"
        )
    mapped = dict(chosen) or {**known, **overall}
    return {name: mapped[name] for name in benchmark.dimensions if name in mapped}


def evaluate_model(
    benchmark: Benchmark, scored: ScoredClips, mapping: Mapping[str, tuple[str, ...]]
) -> tuple[list[Agreement], list[Judged]]:
    """Return the agreement on each mapped dimension, and the rows that it was computed from.

    Pairs that people did not judge on a dimension have no row for it.

    Raises:
        ConfigError: The model has no dimension that `mapping` names.
    """
    found: list[Agreement] = []
    rows: list[Judged] = []
    for dimension, names in mapping.items():
        judged = [
            *(
                _judged(scored, dimension, names, pair.a, pair.b, pair.labels[dimension])
                for pair in benchmark.pairs
                if dimension in pair.labels
            ),
            *(
                _judged(scored, dimension, names, rating.key, None, rating.values[dimension])
                for rating in benchmark.ratings
            ),
        ]
        used = [row for row in judged if row.skipped is None]
        human = [row.human for row in used]
        margins = [(row.score_a or 0.0) - (row.score_b or 0.0) for row in used]
        found.append(
            Agreement(
                model=scored.label,
                dimension=dimension,
                scored_by="+".join(names),
                num_used=len(used),
                num_skipped=len(judged) - len(used),
                accuracy=pairwise_accuracy(human, margins) if benchmark.pairs else None,
                spearman=spearman(human, margins) if benchmark.ratings else None,
            )
        )
        rows += judged
    return found, rows


def format_agreements(benchmark: Benchmark, found: Sequence[Agreement]) -> str:
    """Return the results as a plain text table."""
    what = "pairs" if benchmark.pairs else "videos"
    measured = ("with ties", "without ties") if benchmark.pairs else ("Spearman",)
    rows = [("model", "dimension", "scored by", what, "skipped", *measured)]
    for agreement in found:
        if (accuracy := agreement.accuracy) is not None:
            values = (_percent(accuracy.with_ties), _percent(accuracy.without_ties))
        else:
            values = ("-" if agreement.spearman is None else f"{agreement.spearman:+.4f}",)
        counts = (str(agreement.num_used), str(agreement.num_skipped))
        rows.append((agreement.model, agreement.dimension, agreement.scored_by, *counts, *values))
    lines = text_table(rows, right=range(3, len(rows[0])))
    return f"{benchmark.name}: {len(benchmark.keys())} videos\n{lines}"


def to_json(benchmark: Benchmark, found: Sequence[Agreement]) -> dict[str, Any]:
    """Return the results for a JSON file."""
    return {
        "benchmark": benchmark.name,
        "num_pairs": len(benchmark.pairs),
        "num_videos": len(benchmark.keys()),
        "results": [asdict(agreement) for agreement in found],
    }


def _judged(
    scored: ScoredClips,
    dimension: str,
    names: tuple[str, ...],
    a: Key,
    b: Key | None,
    human: float,
) -> Judged:
    values: list[float] = []
    reasons: list[str] = []
    for key in (a,) if b is None else (a, b):
        result = scored.of(key)
        if isinstance(result, Score):
            values.append(_value(result, names, scored.label))
        else:
            reasons.append(result)
    return Judged(
        model=scored.label,
        dimension=dimension,
        video_a=a[0],
        video_b=None if b is None else b[0],
        prompt=a[1],
        human=human,
        score_a=None if reasons else values[0],
        score_b=None if reasons or b is None else values[1],
        skipped="; ".join(reasons) or None,
    )


def _value(score: Score, names: tuple[str, ...], label: str) -> float:
    known = {**score.dimensions, TOTAL: score.total}
    if missing := [name for name in names if name not in known]:
        raise ConfigError(
            f"{label} scores no {missing[0]!r}; it scores {', '.join(score.dimensions)}, {TOTAL}"
        )
    return sum(known[name] for name in names)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2%}"

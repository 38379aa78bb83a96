"""What a step logs, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from statistics import fmean, pstdev

from videorl.rollouts import Round
from videorl.selection import Selection
from videorl.types import (
    LearnerOutput,
    PromptOutcome,
    ScoredGroup,
    StepRecord,
    TrainingExample,
    WeightVersion,
)

TRAINED = "trained"
LOST_REASONS = frozenset({"group_lost", "prompt_rejected"})
"""Outcomes of prompts whose group never arrived, as `Rollouts.take` names them."""


def mean_by_name(rows: Iterable[Mapping[str, float]], prefix: str) -> dict[str, float]:
    """Return the mean of every name over the rows that have it."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, []).append(value)
    return {f"{prefix}/{name}": sum(found) / len(found) for name, found in values.items()}


def spreads(groups: Iterable[ScoredGroup]) -> dict[str, float]:
    """Return how far apart the candidates of a prompt are scored, by dimension and in total.

    Mean over groups of the population's standard deviation within a group, >= 0. Groups of a single
    candidate do not count.
    """
    found: dict[str, list[float]] = {}
    for group in groups:
        values: dict[str, list[float]] = {}
        for candidate in group.candidates:
            scores = {**candidate.score.dimensions, "total": candidate.score.total}
            for name, value in scores.items():
                values.setdefault(name, []).append(value)
        for name, scored in values.items():
            if len(scored) > 1:
                found.setdefault(name, []).append(pstdev(scored))
    return {f"spread/{name}": fmean(deviations) for name, deviations in found.items()}


def disagreements(groups: Iterable[ScoredGroup]) -> dict[str, float]:
    """Return how often two reward models order the candidates of a prompt the other way round.

    `disagreement/<a>/<b>` is the share in [0, 1] of the pairs of candidates that neither of them
    ties, mean over groups: (1 - Kendall's tau) / 2. Nothing of a run with one reward model.
    """
    found: dict[str, list[float]] = {}
    for group in groups:
        rows = [candidate.score.by_model for candidate in group.candidates]
        for a, b in combinations(rows[0] if rows else (), 2):
            signs = [
                (one[a] - other[a]) * (one[b] - other[b]) for one, other in combinations(rows, 2)
            ]
            if told_apart := [sign < 0 for sign in signs if sign]:
                found.setdefault(f"disagreement/{a}/{b}", []).append(fmean(told_apart))
    return {name: fmean(shares) for name, shares in found.items()}


def stage_times(metrics: Mapping[str, float], step_s: float) -> dict[str, float]:
    """Return the seconds of a step, and those of them that no stage has: stages add up to the step.

    Args:
        metrics: Of the step, with `time/<stage>_s` of each stage.
        step_s: Wall seconds of the step.
    """
    stages = sum(value for name, value in metrics.items() if name.startswith("time/"))
    return {"time/other_s": step_s - stages, "time/step_s": step_s}


def record_step(
    step: int,
    taken: Round,
    examples: Sequence[TrainingExample],
    published: WeightVersion,
    reference: WeightVersion,
    selection: Selection,
) -> StepRecord:
    """Return the record of a step, with what became of every prompt of its round."""
    learned = {example.prompt.index for example in examples}

    def outcome(group: ScoredGroup) -> PromptOutcome:
        is_learned = group.prompt.index in learned
        return PromptOutcome(group.prompt, TRAINED if is_learned else selection.why_no_pair(group))

    outcomes = [*taken.lost, *(outcome(group) for group in taken.groups)]
    outcomes.sort(key=lambda outcome: outcome.prompt.index)
    return StepRecord(
        step,
        tuple(outcomes),
        taken.groups,
        tuple(examples),
        taken.version,
        published,
        reference,
    )


def counts(
    outcomes: Iterable[str],
    dropped: Iterable[tuple[str, int]],
    ages: Iterable[int],
) -> dict[str, float]:
    """Return the counters of a step; those that would be 0 are left out.

    Args:
        outcomes: What became of each prompt: `TRAINED`, or why nothing was learned.
        dropped: Reason and number of candidates that were lost.
        ages: Age of the weights of each scored candidate, in optimizer steps.
    """
    counter: Counter[str] = Counter()
    for outcome in outcomes:
        if outcome != TRAINED:
            kind = "dropped" if outcome in LOST_REASONS else "no_pair"
            counter[f"groups/{kind}_{outcome}"] += 1
    for reason, number in dropped:
        counter[f"candidates/dropped_{reason}"] += number
    for age in ages:
        counter[f"staleness/candidates_{age}"] += 1
    return {name: float(number) for name, number in counter.items()}


def round_metrics(record: StepRecord, output: LearnerOutput, wait_s: float) -> dict[str, float]:
    """Return everything that a step logs.

    Means over candidates: `reward/<dimension>`, `reward/total`, `unseen/<metric>`.
    `spread/…` is how much scores differ within a group, `disagreement/…` how reward models do.
    `staleness/candidates_<n>` counts candidates whose weights were n optimizer steps old, by the
    version that their generator proved; `staleness/steps` is the age that was asked for.
    `wait_s` is how long the learner waited for the round, in seconds.
    """
    scored = [candidate for group in record.groups for candidate in group.candidates]
    metrics = mean_by_name((candidate.score.dimensions for candidate in scored), "reward")
    metrics |= mean_by_name(({"total": candidate.score.total} for candidate in scored), "reward")
    metrics |= spreads(record.groups) | disagreements(record.groups)
    metrics |= mean_by_name((candidate.unseen for candidate in scored), "unseen")
    metrics |= mean_by_name(({"margin": pair.margin} for pair in record.pairs), "pairs")
    if weights := [example.weight for example in record.weighted]:
        # Kish's effective sample size over n: 1 if all weigh the same, 1 / n if a single one does.
        share = sum(weights) ** 2 / (len(weights) * sum(weight**2 for weight in weights))
        metrics["regression/effective_share"] = share
    metrics |= counts(
        (prompt.outcome for prompt in record.outcomes),
        (lost for group in record.groups for lost in group.dropped.items()),
        (record.step - candidate.candidate.version.step for candidate in scored),
    )
    return {
        **metrics,
        **output.metrics,
        "candidates/scored": float(len(scored)),
        "staleness/steps": float(record.step - record.sampled.step),
        "policy/version_step": float(output.version.step),
        "reference/version_step": float(record.reference.step),
        "time/wait_s": wait_s,
    }

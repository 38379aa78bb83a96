"""Everything that a comparison says, as data and as plain text."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videorl.comparison.runs import ComparedRun, differing_settings
from videorl.comparison.scores import Difference, Kind, Measured, Metric, measure, scale_problem
from videorl.comparison.seeds import SeedsRow, names_of, rows_of_seeds
from videorl.evaluation.text_table import text_table
from videorl.report.charts import fixed, number, signed
from videorl.report.verdicts import label
from videorl.run.progress import duration

SCORES = ("base", "aligned", "95 % interval", "aligned less base")
"""Columns of what a run scored by itself."""
SEEDS = ("over training seeds", "seeds", "runs", "aligned", "aligned less base")
"""Columns of several runs of one recipe; 95 % intervals by Student's t."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side; the first is what the others are compared with."""

    runs: Sequence[ComparedRun]
    metrics: Sequence[Metric]
    settings: Mapping[str, Mapping[str, Any]]
    """Dotted name -> label -> value, of what differs."""
    notes: Sequence[str]
    """What a reader must know before believing the numbers."""
    seeds: Sequence[SeedsRow] = ()
    """Of recipes of which several training seeds are compared."""

    def to_dict(self) -> dict[str, Any]:
        """Return what `json.dump` writes."""
        return {
            "runs": [_facts(run) for run in self.runs],
            "notes": list(self.notes),
            "metrics": [dataclasses.asdict(metric) for metric in self.metrics],
            "settings": self.settings,
            "seeds": [dataclasses.asdict(row) for row in self.seeds],
        }


def compare(runs: Sequence[ComparedRun]) -> Comparison:
    """Compare two or more runs."""
    metrics = measure(runs)
    seeds = rows_of_seeds(runs, metrics)
    return Comparison(runs, metrics, differing_settings(runs), _notes(runs, metrics), seeds)


def _facts(run: ComparedRun) -> dict[str, Any]:
    return {
        "name": run.label,
        "folder": str(run.folder),
        "finished": bool(run.contents.summary),
        "steps": run.steps,
        "num_steps": run.contents.num_steps,
        "training_seconds": run.training_seconds,
        "candidates": run.candidates,
        "held_out_prompts": len(run.after),
    }


def _notes(runs: Sequence[ComparedRun], metrics: Sequence[Metric]) -> list[str]:
    notes: list[str] = []
    first = runs[0]
    for run in runs:
        if not run.after:
            notes.append(
                f"{run.label} has no scores of its aligned policy on held-out prompts: it has not "
                "finished, or has no `evaluation.source`"
            )
        if run.num_lost:
            notes.append(f"{run.label}: {run.num_lost} held-out prompts lost a sample: left out")
    for run in runs[1:]:
        if setting := scale_problem(first, run, "dimension"):
            notes.append(
                f"{run.label} was scored by other rewards than {first.label} ({setting}): only "
                "unseen metrics are compared"
            )
        elif setting := scale_problem(first, run, "total"):
            notes.append(
                f"{run.label} makes its total in another way than {first.label} ({setting}): "
                "totals are not compared"
            )
        notes += _pairing(first, run, metrics)
    return notes


def _pairing(first: ComparedRun, run: ComparedRun, metrics: Sequence[Metric]) -> list[str]:
    found = [metric.runs[run.label].against_first for metric in metrics]
    differences = [difference for difference in found if difference]
    if not differences:
        return []
    if not differences[0].paired:
        return [
            f"{run.label} and {first.label} share fewer than two held-out prompts with a seed: "
            "their difference is unpaired, and its interval the wider for it"
        ]
    shared = differences[0].num_prompts
    most = max(len(first.after), len(run.after))
    both, notes = f"{run.label} and {first.label}", []
    if shared < most:
        notes.append(f"{both} are compared on the {shared} prompts they share of {most}")
    mine, theirs = _seeds(first), _seeds(run)
    if any(mine[text] != theirs[text] for text in mine.keys() & theirs.keys()):
        notes.append(f"{both} are compared on the seeds they share; their means are of all seeds")
    return notes


def _seeds(run: ComparedRun) -> dict[str, set[int]]:
    """Return text -> seeds of the aligned samples."""
    return {group.prompt.text: {c.candidate.seed for c in group.candidates} for group in run.after}


def format_comparison(comparison: Comparison) -> str:
    """Return plain text: held-out numbers, cost, settings that differ, notes."""
    first = comparison.runs[0].label
    rows: list[tuple[str, ...]] = [("", "run", *SCORES, f"vs {first}")]
    for metric in comparison.metrics:
        name = label(metric.name) + (" (unseen)" if metric.kind == "unseen" else "")
        for run in comparison.runs:
            rows.append((name, run.label, *score_cells(metric.runs[run.label], metric.kind)))
            name = ""
    cost: list[tuple[str, ...]] = [("run", "steps", "training", "candidates")]
    cost += [(run.label, *cost_cells(run)) for run in comparison.runs]
    settings: list[tuple[str, ...]] = [("setting", *(run.label for run in comparison.runs))]
    for name, values in comparison.settings.items():
        settings.append((name, *(shown(values, run.label) for run in comparison.runs)))
    blocks = [text_table(rows)]
    if comparison.seeds:
        blocks.append(text_table([SEEDS, *map(seeds_cells, comparison.seeds)]))
    blocks.append(text_table(cost))
    blocks.append(text_table(settings) if len(settings) > 1 else "all settings are the same")
    blocks += [f"note: {note}" for note in comparison.notes]
    return "\n\n".join(blocks)


def cost_cells(run: ComparedRun) -> tuple[str, str, str]:
    """Return steps, wall time of training and candidates as text."""
    seconds, candidates = run.training_seconds, run.candidates
    of = f"/{run.contents.num_steps}" if run.contents.num_steps else ""
    return (
        f"{run.steps}{of}",
        "–" if seconds is None else duration(seconds),
        "–" if candidates is None else f"{candidates:,}",
    )


def shown(values: Mapping[str, Any], name: str) -> str:
    """Return the value of a run's setting as text."""
    if name not in values:
        return "–"
    value = values[name]
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def score_cells(measured: Measured, kind: Kind) -> tuple[str, str, str, str, str]:
    """Return what `SCORES` names, and the difference from the first run, as text."""
    # Unseen metrics have scales of their own, some of them small.
    show = number if kind == "unseen" else fixed
    aligned = measured.aligned
    return (
        show(measured.base.mean if measured.base else None),
        show(aligned.mean if aligned else None),
        f"{show(aligned.low)} to {show(aligned.high)}" if aligned else "–",
        _difference(measured.change, kind),
        _difference(measured.against_first, kind),
    )


def seeds_cells(row: SeedsRow) -> tuple[str, ...]:
    """Return what `SEEDS` names, as text."""
    show = number if row.kind == "unseen" else fixed
    aligned = f"{show(row.aligned.mean)} [{show(row.aligned.low)}, {show(row.aligned.high)}]"
    change = _difference(row.change and Difference(row.change, True, len(row.runs)), row.kind)
    return (label(row.metric), str(len(row.runs)), names_of(row), aligned, change)


def _difference(found: Difference | None, kind: Kind) -> str:
    if not found:
        return ""
    ends = (found.interval.mean, found.interval.low, found.interval.high)
    mean, low, high = (_with_sign(value, kind) for value in ends)
    return f"{mean} [{low}, {high}]{'' if found.paired else ' unpaired'}"


def _with_sign(value: float, kind: Kind) -> str:
    return signed(value) if kind != "unseen" else f"{'+' if value > 0 else ''}{number(value)}"

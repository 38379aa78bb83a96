"""Runs that differ in their training seed alone, as one row: seeds are the unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from videorl.comparison.runs import OWN, ComparedRun
from videorl.comparison.scores import Kind, Metric
from videorl.evaluation.corrections import t_interval
from videorl.evaluation.statistics import Interval

_SEED = "seed"


@dataclass(frozen=True, slots=True)
class SeedsRow:
    """A number of the runs of one recipe."""

    metric: str
    kind: Kind
    runs: tuple[str, ...]
    """Their labels."""
    aligned: Interval
    """Mean over seeds of the aligned policy, with Student's 95 % interval."""
    change: Interval | None
    """The same of each run's aligned policy less its own base."""


def groups_of_seeds(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Return the runs that share every setting but name, folder and seed, two or more together."""
    found: dict[str, list[ComparedRun]] = {}
    for run in runs:
        settings = {key: value for key, value in run.settings.items() if key not in (*OWN, _SEED)}
        found.setdefault(repr(sorted(settings.items())), []).append(run)
    return [
        group
        for group in found.values()
        if len({run.settings.get(_SEED, 0) for run in group}) == len(group) > 1
    ]


def rows_of_seeds(runs: Sequence[ComparedRun], metrics: Sequence[Metric]) -> list[SeedsRow]:
    """Return a row per metric and recipe of which there are several seeds."""
    rows: list[SeedsRow] = []
    for group in groups_of_seeds(runs):
        for metric in metrics:
            measured = [metric.runs[run.label] for run in group]
            aligned = [found.aligned.mean for found in measured if found.aligned]
            if len(aligned) < len(group):
                continue
            changes = [found.change.interval.mean for found in measured if found.change]
            change = t_interval(changes) if len(changes) == len(group) else None
            labels = tuple(run.label for run in group)
            rows.append(SeedsRow(metric.name, metric.kind, labels, t_interval(aligned), change))
    return rows


def names_of(row: SeedsRow, most: int = 3) -> str:
    """Return the runs of a row, the first few of them by name."""
    more = len(row.runs) - most
    return ", ".join(row.runs[:most]) + (f" and {more} more" if more > 0 else "")

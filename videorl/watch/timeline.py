"""Pool sizes, faults and swaps of the reference, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from videorl.report.contents import RunContents

SO_FAR = (
    "generator/uncompiled",
    "_repeated_for_speed",
    "_retried",
    "_replaced",
    "_fenced",
    "fixed_prompts/lost",
    "_lost",  # of trackers
)
"""Ends of the names of those that count since the command was started, not in a step."""
FAULTS = ("/dropped_", "/not_finite", "/skipped", *SO_FAR)
"""Parts of the names of metrics that count something bad."""
SIZES = ("_workers", "_starting", "_queued")
"""Ends of the names of pool metrics that are shown."""

Series = list[tuple[int, float | None]]


@dataclass(frozen=True)
class Timeline:
    """What happened beside learning."""

    pools: dict[str, Series]
    """Such as `generator workers` -> (step, number)."""
    faults: dict[str, Series]
    """Metric -> (step, count in this step), of steps where it was not 0."""
    swaps: list[int]
    """Steps after which the reference became another version."""
    ending: list[str]
    """What the summary counts of workers and restarts, as sentences; empty before the end."""


def timeline(run: RunContents) -> Timeline:
    """Return the time line of a run so far."""
    pools: dict[str, Series] = {}
    faults: dict[str, Series] = {}
    for name in run.metrics():
        if any(part in name for part in FAULTS):
            counts = run.series(name)
            if name.endswith(SO_FAR) and "/dropped_" not in name:
                counts = _increases(counts)
            bad: Series = [(step, value) for step, value in counts if value]
            if bad:
                faults[name] = bad
        elif name.startswith("pool/") and name.endswith(SIZES):
            pools[name.removeprefix("pool/").replace("_", " ")] = run.series(name)
    return Timeline(pools, faults, run.reference_swaps(), _ending(run.summary))


def _increases(totals: Series) -> Series:
    """Return what each step added; a total that fell began anew, as the run was resumed."""
    made: Series = []
    before = 0.0
    for step, total in totals:
        if total is not None:
            made.append((step, total - before if total >= before else total))
            before = total
    return made


def _ending(summary: Mapping[str, object]) -> list[str]:
    generators = summary.get("generators")
    known = generators if isinstance(generators, Mapping) else {}
    counts = {
        "generators that were replaced": known.get("workers_replaced"),
        "requests that were repeated": known.get("retried"),
        "starts of the learner": summary.get("learner_starts"),
    }
    return [f"{what}: {count}" for what, count in counts.items() if isinstance(count, int)]

"""Rounds that teach nothing: what to say of them while a run goes on, and at its end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from videorl.objectives.objective import EXAMPLES, SKIPPED
from videorl.types import StepRecord

LOST = 3
"""Rounds in a row that may give nothing to compare before the run stops."""
UNTAUGHT = 10
"""Rounds in a row without anything to learn from, after each of which a warning follows."""

_logger = logging.getLogger(__name__)


class EmptyRounds:
    """Counts rounds in a row that were lost whole, and that had nothing to learn from."""

    def __init__(self) -> None:
        self._lost: list[StepRecord] = []
        # Not the records: they would keep the media of ten rounds in memory.
        self._untaught: list[tuple[int, Counter[str]]] = []

    def add(self, record: StepRecord) -> None:
        """Look at the record of the next step; warn if it is time to."""
        self._lost = [*self._lost, record] if is_lost(record) else []
        row = (record.step, reasons([record]))
        self._untaught = [] if record.examples else [*self._untaught, row]
        if len(self._untaught) == UNTAUGHT:
            steps, counters = zip(*self._untaught, strict=True)
            text = "steps %d to %d had nothing to learn from (%s): the weights stand still"
            _logger.warning(text, steps[0], steps[-1], _listed(sum(counters, Counter())))
            self._untaught = []

    @property
    def are_too_many(self) -> bool:
        """Whether so many rounds in a row were lost that the run should stop."""
        return len(self._lost) >= LOST

    def why(self) -> str:
        """Return what to say of the rounds that were lost."""
        records = self._lost
        outcomes = [outcome for record in records for outcome in record.outcomes]
        errors = [outcome.error for outcome in outcomes if outcome.error]
        return (
            f"steps {records[0].step} to {records[-1].step}: {len(records)} rounds in a row gave "
            f"nothing to compare ({_listed(reasons(records))})"
            + (f"; the last error was: {errors[-1]}" if errors else "")
            + f". The run stopped at step {records[-1].step + 1} with everything kept; mend the "
            "cause and start the same command again"
        )


def is_lost(record: StepRecord) -> bool:
    """Tell whether no prompt of a round came to two scored candidates; ties are not losses."""
    return all(len(group.candidates) < 2 for group in record.groups)


def reasons(records: Sequence[StepRecord]) -> Counter[str]:
    """Count why prompts and candidates of rounds were of no use."""
    outcomes = [outcome for record in records for outcome in record.outcomes]
    counter = Counter(outcome.outcome for outcome in outcomes)
    for group in (group for record in records for group in record.groups):
        counter.update(group.dropped)
    return counter


def steps_learned(metrics: Iterable[Mapping[str, Any]]) -> int | None:
    """Count the steps that changed the weights; None if no row says how many examples it had.

    Not among them are steps without anything to learn from, nor those whose gradient was not
    finite.

    Args:
        metrics: The rows of `metrics.jsonl`.
    """
    rows = [row for row in metrics if row.get(EXAMPLES) is not None]
    return sum(row[EXAMPLES] > 0 and (row.get(SKIPPED) or 0) < 1 for row in rows) if rows else None


def nothing_learned(metrics: Iterable[Mapping[str, Any]]) -> str:
    """Return what to say of a run in which no step learned anything."""
    prefix = "groups/"
    counter: Counter[str] = Counter()
    rows = list(metrics)
    for row in rows:
        named = {name: number for name, number in row.items() if name.startswith(prefix)}
        counter.update({name.removeprefix(prefix): int(number) for name, number in named.items()})
    if num_skipped := sum((row.get(EXAMPLES) or 0) > 0 for row in rows):
        found = (
            f"none of {len(rows)} steps changed the weights: in {num_skipped} the gradient was not "
            "finite (optimizer/skipped), the others had nothing to learn from"
        )
    else:
        found = f"none of {len(rows)} steps had anything to learn from"
    return (
        f"{found} ({_listed(counter) or 'no examples'}): the "
        "aligned weights are those that the run started from. See docs/metrics.md for what the "
        "reasons mean; often rewards that tie (weights, selection.min_margin) or a short run"
    )


def _listed(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{reason}: {number}" for reason, number in sorted(counter.items()))

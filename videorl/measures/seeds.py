"""Several training seeds of one method as one row: policies called `NAME#SEED`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from videorl.evaluation.corrections import holm, student_p, t_interval
from videorl.evaluation.statistics import Interval
from videorl.measures.results import WIN_RATE, OverSeeds, Row
from videorl.measures.win_rates import WinRate

_MARK = "#"
_ROUNDING = 1e-12
"""Of means, whose sum in floating point depends on the order."""


def method_of(label: str) -> str:
    """Return the name of a method without its seed."""
    return label.rpartition(_MARK)[0] or label


def over_seeds(rows: Sequence[Row], rates: Sequence[WinRate]) -> list[OverSeeds]:
    """Return every number of every method that has more than one seed; empty if none has.

    Means over prompts of different seeds differ by training alone, as prompts and noise are the
    same: so the interval says what other training seeds would give on these prompts.
    """
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[method_of(row.label)] += _MARK in row.label
    if not any(count > 1 for count in counts.values()):
        return []
    values: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for row in rows[1:]:
        for name, number in row.numbers.items():
            if (before := rows[0].numbers.get(name)) is not None:
                found = number.difference.mean if number.difference else number.value - before.value
                values[method_of(row.label), name].append((number.value, found))
    for rate in rates:
        name = f"{WIN_RATE}, {rate.model} {rate.dimension}"
        values[method_of(rate.label), name].append((rate.rate.mean, rate.rate.mean - 0.5))
    return _corrected([_of(*place, pairs) for place, pairs in values.items()])


def _of(method: str, measure: str, pairs: Sequence[tuple[float, float]]) -> OverSeeds:
    shown, changes = ([pair[side] for pair in pairs] for side in (0, 1))
    if max(changes) - min(changes) <= _ROUNDING * max(map(abs, (*shown, *changes))):
        # Of a single seed, or of seeds that happen to be equal (win rates of few prompts are), no
        # spread is known: an interval of no width would claim a certainty that nothing shows.
        alone = Interval(*[fmean(shown)] * 3)
        return OverSeeds(method, measure, len(pairs), alone)
    value, difference = t_interval(shown), t_interval(changes)
    return OverSeeds(method, measure, len(pairs), value, difference, student_p(changes))


def _corrected(found: Sequence[OverSeeds]) -> list[OverSeeds]:
    given = [row.p for row in found if row.p is not None]
    adjusted = iter(holm(given))
    return [row if row.p is None else replace(row, p_holm=next(adjusted)) for row in found]

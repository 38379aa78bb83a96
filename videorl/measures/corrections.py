"""The p-values of a report, corrected for how many comparisons it makes."""

from __future__ import annotations

from dataclasses import replace

from videorl.evaluation.corrections import holm
from videorl.measures.results import Report


def corrected(report: Report) -> Report:
    """Return the report with `p_holm` of every difference and win rate, all of them one family."""
    places = [
        (number, name)
        for number, row in enumerate(report.rows)
        for name, found in row.numbers.items()
        if found.p is not None
    ]
    rates = [number for number, rate in enumerate(report.win_rates) if rate.p is not None]
    given = [report.rows[row].numbers[name].p for row, name in places]
    given += [report.win_rates[number].p for number in rates]
    adjusted = holm([p for p in given if p is not None])
    by_place = dict(zip(places, adjusted, strict=False))
    by_rate = dict(zip(rates, adjusted[len(places) :], strict=True))
    rows = [
        replace(
            row,
            numbers={
                name: replace(found, p_holm=by_place.get((number, name)))
                for name, found in row.numbers.items()
            },
        )
        for number, row in enumerate(report.rows)
    ]
    win_rates = [
        replace(rate, p_holm=by_rate.get(number)) for number, rate in enumerate(report.win_rates)
    ]
    return replace(report, rows=rows, win_rates=win_rates)

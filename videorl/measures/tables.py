"""A comparison as text, Markdown, LaTeX and JSON."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from videorl.evaluation.statistics import Interval
from videorl.evaluation.text_table import text_table
from videorl.measures.people import Agreement
from videorl.measures.power import prompts_needed_if_any
from videorl.measures.results import WIN_RATE, Number, OverSeeds, Report, Row, column_of
from videorl.measures.win_rates import WinRate

Cells = list[tuple[str, ...]]
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "≥": r"$\geq$", "∞": r"$\infty$", "−": "-", "<": "$<$", ">": "$>$", "|": r"\textbar{}",
}  # fmt: skip
WIN_HEAD = (
    "model", "dimension", "folder", "win", "tie", "loss", "win rate", "p (Holm)", "prompts",
    "needed",
)  # fmt: skip
SEEDS_HEAD = ("measure", "method", "mean", "difference", "p (Holm)", "seeds")
AGREEMENT_HEAD = ("measure", "question", "without ties", "with ties", "pairs", "ties of people")
COMPUTED_HEAD = ("measure", "computed by")
CHANGE_HEAD = ("measure", "folder", "difference", "p (Holm)", "seen from", "prompts", "needed")


def to_json(report: Report) -> dict[str, Any]:
    """Return what a JSON file says: raw numbers, 1 = 100 %."""
    return {**dataclasses.asdict(dataclasses.replace(report, clips=())), "clips": len(report.clips)}


def format_text(report: Report) -> str:
    """Return the tables for a terminal, and the notes."""
    blocks = [text_table(cells) for _, cells in all_tables(report)]
    return "\n\n".join([*blocks, *(f"note: {note}" for note in report.notes)])


def all_tables(report: Report) -> list[tuple[str, Cells]]:
    """Return title and cells of every table that has a row, with intervals."""
    columns = _columns(report)
    cells: Cells = [("", "clips", *columns)]
    for row in report.rows:
        values = (_with_interval(name, row.numbers.get(name)) for name in columns)
        cells.append((row.label, str(row.num_clips), *values))
    first = report.rows[0].label if report.rows else ""
    found: list[tuple[str, Cells]] = [("Means, 95 % intervals", cells)]
    if changes := _changes(report):
        found.append((f"Differences from {first}, paired by prompt", [CHANGE_HEAD, *changes]))
    if report.win_rates:
        rates = list(map(_win_cells, report.win_rates))
        found.append((f"Win rates against {first}", [WIN_HEAD, *rates]))
    if report.methods:
        title = "Over training seeds: mean and Student's 95 % interval"
        found.append((title, seed_cells(report.methods)))
    if report.agreement:
        rows = list(map(_agreement_cells, report.agreement))
        found.append(("Agreement with people", [AGREEMENT_HEAD, *rows]))
    if rows := [(name, by) for name, by in report.computed_by.items() if name in columns]:
        found.append(("What computed it", [COMPUTED_HEAD, *rows]))
    return found


def format_markdown(report: Report) -> str:
    """Return the tables for a page, the best of each column bold, and the notes."""
    blocks = [markdown(_plain(report, "**{}**"))]
    blocks += [markdown(cells) for _, cells in all_tables(report)[1:]]
    return "\n\n".join([*blocks, *(f"- {note}" for note in report.notes)]) + "\n"


def format_latex(report: Report) -> str:
    """Return the tables for a paper (package booktabs), the best of each column bold."""
    blocks = [_latex(_plain(report, "\0{}\1"))]
    if report.methods:
        blocks.append(_latex(seed_cells(report.methods)))
    if report.win_rates:
        blocks.append(_latex([WIN_HEAD, *map(_win_cells, report.win_rates)]))
    columns = _columns(report)
    by = [f"{name}: {by}" for name, by in report.computed_by.items() if name in columns]
    return "\n".join([*(f"% {said}" for said in (*report.notes, *by)), *blocks])


def _columns(report: Report) -> list[str]:
    return list(dict.fromkeys(name for row in report.rows for name in row.numbers))


def _plain(report: Report, bold: str) -> Cells:
    """Return the table as papers print it: means, best bold."""
    columns = _columns(report)
    best = {name: _best(report.rows, name) for name in columns}
    cells: Cells = [("", *columns)]
    for row in report.rows:
        values: list[str] = []
        for name in columns:
            number = row.numbers.get(name)
            text = "–" if number is None else _shown(name, number.value)
            values.append(bold.format(text) if text == best[name] else text)
        cells.append((row.label, *values))
    return cells


def _best(rows: Sequence[Row], name: str) -> str | None:
    values = [row.numbers[name].value for row in rows if name in row.numbers]
    if len(values) < 2 or not (sign := column_of(name).sign):
        return None
    return _shown(name, min(values) if sign < 0 else max(values))


def _shown(name: str, value: float) -> str:
    column = column_of(name)
    if column.sign < 0 and abs(value) < 1.0:  # what is usual for FVD depends on the checkpoint
        return f"{value:.4f}"
    return f"{column.scale * value:.{2 if column.scale > 1 or column.sign < 0 else 3}f}"


def _p(found: float | None) -> str:
    return "–" if found is None else "< 0.001" if found < 0.001 else f"{found:.3f}"


def _with_interval(name: str, number: Number | None) -> str:
    if number is None:
        return "–"
    text = _shown(name, number.value)
    if number.interval is None:
        return text
    return f"{text} [{_shown(name, number.interval.low)}, {_shown(name, number.interval.high)}]"


def _changes(report: Report) -> Cells:
    """Return a row per measure and folder that was compared with the first."""
    cells: Cells = []
    for name in _columns(report):
        for row in report.rows:
            number = row.numbers.get(name)
            if number is None or number.difference is None:
                continue
            scale = column_of(name).scale
            change = _signed(number.difference, scale)
            needed = "–" if number.needed is None else str(number.needed)
            prompts, seen = str(number.num_prompts), "–"
            if number.seen is not None:
                seen = f"±{_digits(scale * number.seen, scale)}"
            cells.append((name, row.label, change, _p(number.p_holm), seen, prompts, needed))
    return cells


def _signed(found: Interval, scale: float) -> str:
    mean, low, high = (scale * value for value in (found.mean, found.low, found.high))
    digits = 2 if scale > 1 else 3
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def _digits(value: float, scale: float) -> str:
    return f"{value:.{2 if scale > 1 else 3}f}"


def _win_cells(found: WinRate) -> tuple[str, ...]:
    shares = (f"{100 * share:.1f}" for share in (found.wins, found.ties, found.losses))
    mean, low, high = (100 * v for v in (found.rate.mean, found.rate.low, found.rate.high))
    distance = found.rate.mean - 0.5
    needed, rate = "–", f"{mean:.2f}"
    if found.num_prompts > 1:  # the interval of a single prompt would be a point
        needed = str(prompts_needed_if_any(distance, found.deviation) or needed)
        rate += f" [{low:.1f}, {high:.1f}]"
    head = (found.model, found.dimension, found.label)
    return (*head, *shares, rate, _p(found.p_holm), str(found.num_prompts), needed)


def seed_cells(methods: Sequence[OverSeeds]) -> Cells:
    """Return a row per method and measure."""
    cells: Cells = [SEEDS_HEAD]
    for found in methods:
        column = column_of(found.measure)
        scale = 100.0 if found.measure.startswith(WIN_RATE) else column.scale
        change = "–" if found.difference is None else _signed(found.difference, scale)
        is_alone = found.difference is None
        value = (
            _digits(scale * found.value.mean, scale) if is_alone else _spread(found.value, scale)
        )
        count = str(found.num_seeds)
        cells.append((found.measure, found.method, value, change, _p(found.p_holm), count))
    return cells


def _spread(found: Interval, scale: float) -> str:
    ends = (_digits(scale * value, scale) for value in (found.mean, found.low, found.high))
    return "{} [{}, {}]".format(*ends)


def _agreement_cells(found: Agreement) -> tuple[str, ...]:
    shares = found.accuracy
    values = (shares.without_ties, shares.with_ties)
    shown = ("–" if value is None else f"{100 * value:.1f}" for value in values)
    counts = (str(shares.num_pairs), str(shares.num_human_ties))
    return (found.measure, found.question, *shown, *counts)


def markdown(cells: Cells) -> str:
    """Return a table of Markdown, the first row its head."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    rule = ["---", *["---:"] * (len(cells[0]) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], rule, *rows[1:]])


def _latex(cells: Cells) -> str:
    lines = [" & ".join(map(_escaped, row)) + r" \\" for row in cells]
    head = rf"\begin{{tabular}}{{l{'r' * (len(cells[0]) - 1)}}}"
    end = [r"\bottomrule", r"\end{tabular}", ""]
    return "\n".join([head, r"\toprule", lines[0], r"\midrule", *lines[1:], *end])


def _escaped(text: str) -> str:
    found = re.sub(r"[\\&%$#_{}~^≥∞−<>|]", lambda match: _LATEX[match[0]], text)
    return found.replace("\0", r"\textbf{").replace("\1", "}")

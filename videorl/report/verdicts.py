"""The evaluation part of the report: verdicts, the table of scores, and best of k."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from videorl.report.charts import chart, fixed, interval_bar, number, percent, signed


def label(name: str) -> str:
    """Return a metric's name as words: `reward/visual_quality` -> `visual quality`."""
    return name.split("/")[-1].removesuffix("_s").replace("_", " ")


def verdict_list(evaluation: Mapping[str, Any]) -> str:
    """Return every verdict as a card with the numbers behind it."""
    cards = [
        f'<li class="{"yes" if held else "no"}"><i>{"✓" if held else "✗"}</i>'
        f"<span>{escape(_claim(name))}</span>"
        f"<small>{escape(_grounds(name, evaluation))}</small></li>"
        # A JSON file may have sorted them by name.
        for name, held in sorted(evaluation["verdicts"].items(), key=lambda item: _rank(item[0]))
    ]
    return f'<ul class="verdicts">{"".join(cards)}</ul>'


def _rank(name: str) -> tuple[int, int]:
    order = ("reward_rose", "beats_best_of_", "no_dimension_fell", "dynamic_degree_kept")
    rank = next((i for i, start in enumerate(order) if name.startswith(start)), len(order))
    return rank, int(name.rsplit("_", 1)[1]) if rank == 1 else 0


def _claim(name: str) -> str:
    if name.startswith("beats_best_of_"):
        k = name.rsplit("_", 1)[1]
        return f"One aligned sample matches the best of {k} of the base"
    known = {
        "reward_rose": "The reward rose",
        "no_dimension_fell": "No reward dimension fell",
        "dynamic_degree_kept": "Motion was kept",
    }
    return known.get(name, label(name))


def _grounds(name: str, evaluation: Mapping[str, Any]) -> str:
    total = evaluation["total"]
    if name == "reward_rose":
        difference = total["difference"]
        interval = f"95 % interval {signed(difference['low'])} to {signed(difference['high'])}"
        return f"{fixed(total['before'])} → {fixed(total['after'])}, {interval}"
    if name.startswith("beats_best_of_"):
        best = evaluation["best_of_k"][name.rsplit("_", 1)[1]]
        return f"{fixed(total['after'])} against {fixed(best)}"
    if name == "no_dimension_fell":
        dimensions = evaluation["dimensions"].items()
        changes = {name: scores["difference"]["mean"] for name, scores in dimensions}
        least = min(changes, key=changes.__getitem__, default=None)
        return "" if least is None else f"least: {label(least)} {signed(changes[least])}"
    if name == "dynamic_degree_kept":
        change = percent(evaluation["unseen"]["dynamic_degree"]["relative"])
        return f"dynamic degree {change}; a loss of 10 % is allowed"
    return ""


def evaluation_table(evaluation: Mapping[str, Any]) -> str:
    """Return before, after and change of every dimension and unseen metric."""
    changes = {"total": evaluation["total"], **evaluation["dimensions"]}
    ends = [abs(row["difference"][end]) for row in changes.values() for end in ("low", "high")]
    reach = max(ends) or 1.0
    rows = []
    for name, row in changes.items():
        difference = row["difference"]
        mean, low, high = difference["mean"], difference["low"], difference["high"]
        tone = "up" if low > 0 else "down" if high < 0 else ""
        rows.append(
            f'<tr class="{"total" if name == "total" else ""}"><td>{escape(label(name))}</td>'
            f"<td>{fixed(row['before'])}</td><td>{fixed(row['after'])}</td>"
            f'<td class="{tone}">{signed(mean)}</td><td>{signed(low)} to {signed(high)}</td>'
            f"<td>{interval_bar(low, mean, high, reach)}</td></tr>"
        )
    rows.append('<tr class="group"><td colspan="6">unseen: measured, never optimised</td></tr>')
    rows += [
        f"<tr><td>{escape(label(name))}</td><td>{number(row['before'])}</td>"
        f"<td>{number(row['after'])}</td><td>{percent(row['relative'])}</td><td></td><td></td></tr>"
        for name, row in evaluation["unseen"].items()
    ]
    names = ("", "before", "after", "change", "95 % interval", "")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def best_of_k_chart(evaluation: Mapping[str, Any]) -> str:
    """Return the base's best-of-k curve against the mean of one aligned sample."""
    curve = sorted((int(k), value) for k, value in evaluation["best_of_k"].items())
    return chart(
        "Best of k samples of the base",
        curve,
        note="Sampling k times from the base and keeping the best is what training replaces.",
        level=(evaluation["total"]["after"], "one aligned sample"),
        is_smoothed=False,
    )

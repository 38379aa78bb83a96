"""Rules by which a comparison fails against an earlier one, for continuous integration."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.errors import ConfigError
from videorl.measures.measuring import VIDEO_MAE
from videorl.measures.results import AT_INFINITY, FVD, Report

_RULE = re.compile(
    r"\s*(?P<name>[^<>]+?)\s*(?P<sign>[<>])\s*(?P<limit>[-+−]?[\d.]+)\s*(?P<unit>%?)\s*"
)
_TOTAL, _FVD = "total", "FVD"
_OLD = {_FVD + end: FVD[VIDEO_MAE] + end for end in ("", AT_INFINITY)}
"""How older files call what is measured on VideoMAE."""


@dataclass(frozen=True)
class Rule:
    """A change from the baseline that may not be."""

    text: str
    measure: str
    is_below: bool
    """It fails below the limit; else above."""
    limit: float
    is_relative: bool
    """The limit is a share of the baseline's value; else it is in the measure's own unit."""
    baseline: Mapping[str, Mapping[str, float]]
    """Label -> measure -> value."""

    def broken(self, report: Report) -> list[str]:
        """Return a sentence per folder and measure that breaks the rule, or has no number now."""
        now = {row.label: row.numbers for row in report.rows}
        found: list[str] = []
        for label, values in self.baseline.items():
            for name in _named(self.measure, values):
                before = values[name]
                after = now[label][name].value if name in now.get(label, {}) else None
                if after is None:
                    found.append(f"{label} has no {name} now, so that {self.text!r} cannot hold")
                elif self._is_broken(change := self._change(before, after)):
                    said = f"{100 * change:+.3g} %" if self.is_relative else f"{change:+.4g}"
                    found.append(
                        f"{self.text}: {name} of {label} was {before:.6g}, is {after:.6g} ({said})"
                    )
        return found

    def _change(self, before: float, after: float) -> float:
        if not self.is_relative:
            return after - before
        if not before:
            return 0.0 if after == before else math.copysign(math.inf, after - before)
        return (after - before) / abs(before)

    def _is_broken(self, change: float) -> bool:
        return change < self.limit if self.is_below else change > self.limit


def _named(measure: str, values: Mapping[str, float]) -> list[str]:
    """Return the measures that a rule means.

    `total` is VBench's and that of every reward model, `FVD` and `FVD at infinity` are those on
    every network.
    """
    if measure in values:
        return [measure]
    for end in ("", AT_INFINITY):
        if measure == _FVD + end:
            return [name + end for name in FVD.values() if name + end in values]
    if measure == _TOTAL:
        return [name for name in values if name == "total score" or name.endswith(f" {_TOTAL}")]
    return []


def read_rules(texts: Sequence[str], baseline: Path | None) -> list[Rule]:
    """Read rules such as `total < -1 %` or `FVD > 5`.

    Args:
        texts: MEASURE < or > LIMIT, with % for a share of the baseline's value.
        baseline: `measured.json` of an earlier comparison.

    Raises:
        ConfigError: A rule or the file cannot be read, or the file lacks the measure.
    """
    if baseline is None:
        return []
    known = _read(baseline)
    names = sorted({name for values in known.values() for name in values})
    rules: list[Rule] = []
    for text in texts:
        match = _RULE.fullmatch(text)
        try:
            limit = float(match["limit"].replace("−", "-")) if match else math.nan
        except ValueError:
            limit = math.nan
        if match is None or math.isnan(limit):
            raise ConfigError(
                f"--fail-if must be such as 'total < -1 %' or 'FVD > 5', got {text!r}"
            )
        measure = match["name"]
        if measure not in names:  # as `--metric` spells it
            measure = measure.replace("_", " ")
        if not any(_named(measure, values) for values in known.values()):
            raise ConfigError(
                f"--fail-if: {baseline} has no {measure!r}; it has {', '.join(names)}"
            )
        is_relative = bool(match["unit"])
        limit = limit / 100.0 if is_relative else limit
        rules.append(Rule(text.strip(), measure, match["sign"] == "<", limit, is_relative, known))
    return rules


def _read(path: Path) -> dict[str, dict[str, float]]:
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        return {
            str(row["label"]): {
                _OLD.get(str(name), str(name)): _finite(number["value"])
                for name, number in row["numbers"].items()
            }
            for row in found["rows"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"--baseline: {path} cannot be read as a measured.json of `videorl measure`: {error}"
        ) from error


def _finite(value: Any) -> float:
    """Return a number; of NaN no change is too large, so that no rule would ever be broken."""
    if not math.isfinite(number := float(value)):
        raise ValueError(f"expected finite numbers, got {value}")
    return number

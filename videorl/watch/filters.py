"""Which groups are shown, and in which order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ORDERS = {
    "newest": "step DESC, prompt_index",
    "oldest": "step, prompt_index",
    "largest margin": "margin DESC NULLS LAST, step DESC, prompt_index",
    "smallest margin": "margin NULLS LAST, step DESC, prompt_index",
    "best candidate": "best DESC NULLS LAST, step DESC, prompt_index",
    "worst candidate": "worst NULLS LAST, step DESC, prompt_index",
}
"""Name -> SQL over the table of groups."""


@dataclass(frozen=True)
class Filter:
    """What a group must be to be shown; what is None or empty asks for nothing."""

    first_step: int | None = None
    last_step: int | None = None
    text: str = ""
    """Part of the prompt, in upper or lower case."""
    least_margin: float | None = None
    most_margin: float | None = None
    """Of its pair with the largest margin; groups without a pair do not match either."""
    reason: str = ""
    """What became of the prompt (`trained`, or why not), or why candidates of it were dropped."""
    dimension: str = ""
    """As scores name it; groups of which no candidate has it do not match."""
    kind: str = ""
    """Of the dimension: `reward` or `unseen`, which may have names in common; empty = either."""
    at_least: float | None = None
    """Some candidate has at least this on the dimension, or as total where none is named,"""
    at_most: float | None = None
    """and some candidate at most this."""
    order: str = "newest"
    """A key of `ORDERS`."""

    def where(self) -> tuple[str, dict[str, Any]]:
        """Return an SQL condition over the table of groups `g`, and its parameters."""
        parts: list[str] = ["true"]
        given: dict[str, Any] = {}

        def ask(condition: str, **values: Any) -> None:
            if all(value is not None and value != "" for value in values.values()):
                parts.append(condition)
                given.update(values)

        ask("g.step >= $first_step", first_step=self.first_step)
        ask("g.step <= $last_step", last_step=self.last_step)
        # No pattern: a text may hold % and _.
        ask("contains(lower(g.prompt), lower($text))", text=self.text)
        ask("g.margin >= $least_margin", least_margin=self.least_margin)
        ask("g.margin <= $most_margin", most_margin=self.most_margin)
        ask("(g.outcome = $reason OR list_contains(g.dropped, $reason))", reason=self.reason)
        if self.dimension:
            span = "SELECT 1 FROM spans s WHERE (s.step, s.prompt_index) = (g.step, g.prompt_index)"
            span += " AND s.dimension = $dimension"
            given["dimension"] = self.dimension
            if self.kind:
                span += " AND s.kind = $kind"
                given["kind"] = self.kind
            if self.at_least is not None:
                span += " AND s.high >= $at_least"
                given["at_least"] = self.at_least
            if self.at_most is not None:
                span += " AND s.low <= $at_most"
                given["at_most"] = self.at_most
            parts.append(f"EXISTS ({span})")
        else:
            ask("g.best >= $at_least", at_least=self.at_least)
            ask("g.worst <= $at_most", at_most=self.at_most)
        return " AND ".join(parts), given

"""Rows of tables, whatever kind of file they are in."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from videorl.errors import TableError

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, and why."""

    reason: str
    values: Row = field(default_factory=dict[str, Any])
    """What could be read of it, to say which row it is; values may be wrong."""


BLANK = BadRow("is blank")
"""A row that holds nothing at all."""

Rows: TypeAlias = Iterator[tuple[str, Row | BadRow]]
"""The place of every row, for messages ("line 3"), and the row."""


@dataclass(frozen=True)
class Columns:
    """What a table must have, and what else of it is read."""

    wanted: tuple[str, ...]
    """Every row has them; values may be empty or null. Where there is only one, plain texts of a
    JSON file may stand for rows."""
    optional: tuple[str, ...] = ()
    """Only where the table has them."""
    hint: str = ""
    """Said where a wanted column is missing."""

    @property
    def names(self) -> tuple[str, ...]:
        """Wanted and optional ones, each once."""
        return tuple(dict.fromkeys((*self.wanted, *self.optional)))

    def problem(self, found: Sequence[str]) -> str:
        """Return what is wrong with the names of a table's columns; empty if nothing is."""
        for name in self.names:
            if found.count(name) > 1:
                return f"has {found.count(name)} columns {name!r}"
        missing = next((name for name in self.wanted if name not in found), None)
        if missing is None:
            return ""
        if len(found) == 1 and any(separator in found[0] for separator in ";\t|"):
            return f"has no column {missing!r}, but {found[0]!r}; separate columns by commas"
        near = difflib.get_close_matches(missing, found, n=1, cutoff=0.5)
        advice = [*(f"did you mean {name!r}?" for name in near), self.hint]
        problem = f"has no column {missing!r}, but {', '.join(found) or 'none at all'}"
        return "; ".join([problem, " ".join(filter(None, advice))]).removesuffix("; ")


def unreadable(path: Path, error: OSError) -> TableError:
    """Return what to raise of a file that the system does not give."""
    here = "" if path.is_absolute() else f" (in {Path.cwd()})"
    return TableError(f"{path}{here} cannot be read: {error.strerror or error}")

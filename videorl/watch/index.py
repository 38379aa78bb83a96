"""An index of the groups of an archive, kept up to date while the run writes.

It holds a row per group and one per group and dimension, in memory; candidates, their scores and
videos stay in the files, and are read for the groups of a page alone (`videorl.watch.groups`).
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.data.archive_compaction import Sign, signs_of
from videorl.data.archive_layout import Layout, Span, check_there, read_layout, settled, span_of
from videorl.watch.filters import ORDERS, Filter
from videorl.watch.parquet import connect, load
from videorl.watch.run_state import sign_of

CHUNK = 64
"""Steps that are read at once: few enough that the first page does not wait for the rest."""
SETTLED_NS = 2_000_000_000
"""After so long without a change, a folder's time tells every later one."""
FIRST = 4
"""Steps that are read first, the newest: enough for a page."""

_TABLES = """
CREATE TABLE groups (
    step BIGINT, prompt_index BIGINT, prompt VARCHAR, outcome VARCHAR, error VARCHAR,
    num_candidates BIGINT, best DOUBLE, worst DOUBLE, margin DOUBLE, dropped VARCHAR[]
);
CREATE TABLE spans (
    step BIGINT, prompt_index BIGINT, kind VARCHAR, dimension VARCHAR, low DOUBLE, high DOUBLE
);
"""

_GROUPS = """
INSERT INTO groups
WITH sampled AS (
    SELECT step, prompt_index, any_value(prompt) AS prompt, count(*) AS num_candidates,
           max(total) FILTER (isfinite(total)) AS best, min(total) FILTER (isfinite(total)) AS worst
    FROM staged_candidates GROUP BY ALL
), paired AS (
    SELECT step, prompt_index, max(margin) FILTER (isfinite(margin)) AS margin
    FROM staged_pairs GROUP BY ALL
), lost AS (
    SELECT step, prompt_index, list(DISTINCT reason) AS dropped FROM staged_dropped GROUP BY ALL
)
SELECT step, prompt_index, coalesce(p.prompt, c.prompt), p.outcome, p.error,
       coalesce(c.num_candidates, 0), c.best, c.worst, x.margin, coalesce(d.dropped, [])
FROM sampled c FULL JOIN staged_prompts p USING (step, prompt_index)
LEFT JOIN paired x USING (step, prompt_index) LEFT JOIN lost d USING (step, prompt_index)
"""

_SPANS = """
INSERT INTO spans
SELECT step, c.prompt_index, s.kind, s.dimension, min(s.value), max(s.value)
FROM staged_scores s JOIN staged_candidates c USING (step, candidate_id)
WHERE isfinite(s.value)  -- to DuckDB, NaN is the largest number
GROUP BY step, c.prompt_index, s.kind, s.dimension
"""

_COLUMNS = {
    "candidates": ("candidate_id", "step", "prompt_index", "prompt", "total"),
    "scores": ("candidate_id", "step", "kind", "dimension", "value"),
    "pairs": ("step", "prompt_index", "margin"),
    "dropped": ("step", "prompt_index", "reason"),
    "prompts": ("step", "prompt_index", "prompt", "outcome", "error"),
}


@dataclass(frozen=True)
class Key:
    """Which group."""

    step: int
    prompt_index: int


class Index:
    """The groups of one archive; may be used by several threads.

    Args:
        directory: The archive folder; it need not be there yet.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = connect()
        self._database.execute(_TABLES)
        self._known: dict[int, Sign] = {}
        """Step -> its sign when it was read."""
        self._signs: dict[Span, tuple[Sign | None, dict[int, Sign]]] = {}
        """Partition -> the sign of its file, and those of its steps."""
        self._writing = threading.Lock()
        self.problems: dict[str, str] = {}
        """File -> why its rows are missing; replaced when it changes."""
        self._damaged: dict[str, tuple[int, int] | None] = {}
        """File -> its sign before it was found to be damaged: it may just be copied to here."""
        self.version = 0
        """Counts up whenever groups come or go."""
        self._seen: tuple[int, int] | None = None
        """The folder's sign when everything in it had been read."""

    def refresh(self, most: int | None = None) -> int:
        """Read steps that are new or were written again, newest first; return how many are left.

        Steps that are gone, as a resumed run went back, are forgotten.

        Args:
            most: Read so many steps; None = all.
        """
        with self._writing:
            seen = _settled(self._directory / "candidates")
            mended = {file for file, sign in self._damaged.items() if sign_of(Path(file)) != sign}
            if seen and seen == self._seen and not mended:
                return 0
            there = self._committed()
            again = {step for file in mended for step in _steps_of(file)}
            stale = [
                step
                for step, sign in self._known.items()
                if there.get(step) != sign or step in again
            ]
            self._forget(stale)
            new = sorted(there.keys() - self._known.keys(), reverse=True)
            taken = new if most is None else new[:most]
            for start in range(0, len(taken), CHUNK):
                chunk = taken[start : start + CHUNK]
                self._read(chunk)
                self._known |= {step: there[step] for step in chunk}
                self.version += 1
            self._seen = None if len(new) > len(taken) else seen
            return len(new) - len(taken)

    def count(self, wanted: Filter) -> int:
        """Return the number of groups that match."""
        where, given = wanted.where()
        found = self._ask(f"SELECT count(*) FROM groups g WHERE {where}", given)
        return int(found[0][0])

    def page(self, wanted: Filter, number: int, size: int) -> list[Key]:
        """Return the groups of a page that match, in the order that the filter asks for.

        Args:
            wanted: The filter.
            number: Of the page, from 0.
            size: Groups per page.
        """
        where, given = wanted.where()
        rows = self._ask(
            f"SELECT step, prompt_index FROM groups g WHERE {where} "
            f"ORDER BY {ORDERS[wanted.order]} LIMIT {int(size)} OFFSET {int(number * size)}",
            given,
        )
        return [Key(step, prompt_index) for step, prompt_index in rows]

    def facts(self, keys: list[Key]) -> dict[Key, dict[str, Any]]:
        """Return prompt, outcome, error and dropped reasons of groups."""
        if not keys:
            return {}
        listed = ", ".join(f"({key.step}, {key.prompt_index})" for key in keys)
        rows = self._ask(
            "SELECT step, prompt_index, prompt, outcome, error, dropped FROM groups "
            f"WHERE (step, prompt_index) IN ({listed})"
        )
        names = ("prompt", "outcome", "error", "dropped")
        return {Key(*row[:2]): dict(zip(names, row[2:], strict=True)) for row in rows}

    def reasons(self) -> list[str]:
        """Return what became of prompts, and why candidates were dropped, by name."""
        rows = self._ask(
            "SELECT outcome FROM groups WHERE outcome IS NOT NULL "
            "UNION SELECT unnest(dropped) FROM groups ORDER BY 1"
        )
        return [row[0] for row in rows]

    def dimensions(self) -> list[tuple[str, str]]:
        """Return (kind, dimension) of all scores; kind is `reward` or `unseen`."""
        rows = self._ask("SELECT DISTINCT kind, dimension FROM spans ORDER BY kind, dimension")
        return [(kind, name) for kind, name in rows]

    def num_steps(self) -> int:
        """Return the number of steps that were read."""
        return len(self._known)

    def _ask(self, query: str, given: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
        return self._database.cursor().execute(query, given or {}).fetchall()

    def _committed(self) -> dict[int, Sign]:
        """Return step -> what changes when it is written again, though not when it is merged."""
        found: dict[int, Sign] = {}
        known, self._signs = self._signs, {}
        for span in read_layout(self._directory).spans:
            try:
                if not span.is_partition:
                    found |= signs_of(self._directory, span)
                    continue
                sign = sign_of(span.path(self._directory, "candidates"))
                if span not in known or known[span][0] != sign:
                    known[span] = sign, signs_of(self._directory, span)
                self._signs[span] = known[span]
                found |= known[span][1]
            except FileNotFoundError:
                continue  # it was just moved, which the next refresh sees
        return found

    def _forget(self, steps: list[int]) -> None:
        if not steps:
            return
        for step in steps:
            del self._known[step]
        for table in ("groups", "spans"):
            gone = f"DELETE FROM {table} WHERE list_contains(?, step)"
            self._database.cursor().execute(gone, [steps])
        gone = set(steps)
        self.problems = {
            file: why for file, why in self.problems.items() if gone.isdisjoint(_steps_of(file))
        }
        self._damaged = {file: self._damaged[file] for file in self.problems}
        self.version += 1

    def _read(self, steps: list[int]) -> None:
        cursor = self._database.cursor()
        lost = settled(self._directory, lambda layout: self._stage(cursor, steps, layout))
        self._damaged |= lost[0]
        self.problems = self.problems | lost[1]
        cursor.begin()
        cursor.execute(_GROUPS)
        cursor.execute(_SPANS)
        cursor.commit()

    def _stage(
        self, cursor: Any, steps: list[int], layout: Layout
    ) -> tuple[dict[str, Sign | None], dict[str, str]]:
        """Load the rows of steps; return the signs of damaged files, and what is wrong with them.

        Raises:
            ArchiveError: The run moved some of the rows meanwhile.
        """
        spans = layout.spans_of(sorted(steps))
        damaged: dict[str, Sign | None] = {}
        problems: dict[str, str] = {}
        for name, columns in _COLUMNS.items():
            files = [span.path(self._directory, name) for span in spans]
            signs = {str(file): sign_of(file) for file in files}
            found = load(cursor, name, columns, files, steps)
            damaged |= {file: signs[file] for file in found}
            problems |= found
        check_there(self._directory, [span for span in spans if layout.has(span.first)])
        return damaged, problems


def _steps_of(file: str) -> range:
    """Return the steps that a file of the archive has."""
    span = span_of(Path(file).name)
    return span.steps if span else range(0)


def _settled(folder: Path) -> tuple[int, int] | None:
    """Return what changes when files of a folder come, go or are replaced; None = it just did.

    The clock of the file system is coarse: two changes at the same time look like a single one.
    """
    try:
        facts = folder.stat()
    except OSError:
        return None
    is_settled = time.time_ns() - facts.st_mtime_ns > SETTLED_NS
    return (facts.st_ino, facts.st_mtime_ns) if is_settled else None

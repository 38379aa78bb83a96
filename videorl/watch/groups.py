"""The groups of a page, read from the files of their steps alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from videorl.data.archive_layout import Layout, check_there, settled
from videorl.watch.index import Index, Key
from videorl.watch.parquet import connect, load


@dataclass
class CandidateView:
    """A candidate as it is shown."""

    id: str
    index: int
    seed: int
    version_step: int
    version_digest: str
    total: float
    weight: float | None
    video: str | None
    """Path below the archive; None = the archive keeps none of it."""
    is_missing: bool
    """The archive names a video that is not there."""
    scores: dict[tuple[str, str], float] = field(default_factory=dict[tuple[str, str], float])
    """(`reward` or `unseen`, dimension) -> value."""
    role: str = ""
    """`chosen`, `rejected`, `chosen and rejected` (in different pairs), `learned`, or empty."""


@dataclass
class GroupView:
    """A prompt with its candidates, and what was made of them."""

    step: int
    prompt_index: int
    prompt: str
    outcome: str
    """`trained`, or why nothing was learned from it; empty in archives without a ledger."""
    error: str
    dropped: dict[str, int]
    """Reason -> number of candidates."""
    candidates: list[CandidateView]
    pairs: list[tuple[str, str, float]]
    """(chosen id, rejected id, margin), largest margin first."""


_CANDIDATES = (
    "candidate_id", "step", "prompt_index", "prompt", "candidate_index", "seed",
    "version_step", "version_digest", "total", "weight", "video",
)  # fmt: skip
_COLUMNS = {
    "candidates": _CANDIDATES,
    "scores": ("candidate_id", "step", "kind", "dimension", "value"),
    "pairs": ("step", "prompt_index", "chosen_id", "rejected_id", "margin"),
    "dropped": ("step", "prompt_index", "reason", "count"),
}


def read_groups(directory: Path, index: Index, keys: Sequence[Key]) -> list[GroupView]:
    """Return groups in the order of their keys; what damaged files hold is missing from them."""
    rows = settled(directory, lambda layout: _rows(directory, keys, layout))
    facts = index.facts(list(keys))
    made: list[GroupView] = []
    for key in keys:
        known = facts.get(key, {})
        found = {name: table.get(key, []) for name, table in rows.items()}
        candidates = [_candidate(directory, row) for row in found["candidates"]]
        by_id = {candidate.id: candidate for candidate in candidates}
        for row in found["scores"]:
            by_id[row["candidate_id"]].scores[row["kind"], row["dimension"]] = row["value"]
        pairs = [(row["chosen_id"], row["rejected_id"], row["margin"]) for row in found["pairs"]]
        _assign_roles(by_id, pairs)
        made.append(
            GroupView(
                step=key.step,
                prompt_index=key.prompt_index,
                prompt=str(known.get("prompt") or ""),
                outcome=str(known.get("outcome") or ""),
                error=str(known.get("error") or ""),
                dropped={row["reason"]: row["count"] for row in found["dropped"]},
                candidates=sorted(candidates, key=lambda candidate: candidate.index),
                pairs=sorted(pairs, key=lambda pair: -pair[2]),
            )
        )
    return made


_Rows = dict[str, dict[Key, list[dict[str, Any]]]]
"""Table -> group -> its rows."""


def _rows(directory: Path, keys: Sequence[Key], layout: Layout) -> _Rows:
    """Return the rows of groups.

    Raises:
        ArchiveError: The run moved some of them meanwhile.
    """
    steps = sorted({key.step for key in keys})
    spans = layout.spans_of(steps)
    wanted = ", ".join(f"({key.step}, {key.prompt_index})" for key in keys) or "(-1, -1)"
    rows: _Rows = {}
    with connect() as connection:
        for name, columns in _COLUMNS.items():
            files = [span.path(directory, name) for span in spans]
            load(connection, name, columns, files, steps)  # what is lost, the index has noted
            joined = (
                "SELECT s.*, c.prompt_index FROM staged_scores s "
                "JOIN staged_candidates c USING (step, candidate_id)"
                if name == "scores"
                else f"SELECT * FROM staged_{name}"
            )
            cursor = connection.execute(
                f"SELECT * FROM ({joined}) WHERE (step, prompt_index) IN ({wanted})"
            )
            names = [column[0] for column in cursor.description or []]
            rows[name] = {}
            for values in cursor.fetchall():
                row = dict(zip(names, values, strict=True))
                rows[name].setdefault(Key(row["step"], row["prompt_index"]), []).append(row)
    check_there(directory, [span for span in spans if layout.has(span.first)])
    return rows


def _candidate(directory: Path, row: dict[str, Any]) -> CandidateView:
    video = row["video"]
    return CandidateView(
        id=row["candidate_id"],
        index=row["candidate_index"],
        seed=row["seed"],
        version_step=row["version_step"],
        version_digest=row["version_digest"],
        total=row["total"],
        weight=row["weight"],
        video=video,
        is_missing=video is not None and not (directory / video).is_file(),
    )


def _assign_roles(by_id: dict[str, CandidateView], pairs: Sequence[tuple[str, str, float]]) -> None:
    chosen, rejected = {pair[0] for pair in pairs}, {pair[1] for pair in pairs}
    for name, candidate in by_id.items():
        roles = [role for role, ids in (("chosen", chosen), ("rejected", rejected)) if name in ids]
        candidate.role = " and ".join(roles) or ("learned" if candidate.weight else "")

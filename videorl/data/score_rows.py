"""The rows of a table of scores: columns, types, keys."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from videorl.config import RewardConfig
from videorl.data.clips import Clip, Key
from videorl.data.text_files import printable
from videorl.files.content import file_digest
from videorl.rewards.scoring import Result, combine, named
from videorl.types import Score

FIRST, LAST = ("video", "prompt", "total"), ("raw", "error", "content")
"""Columns before and behind those of the dimensions."""
TEXTS = ("video", "prompt", *LAST)


def dimension_names(table: pa.Table) -> list[str]:
    """Return the columns of `table` that are dimensions."""
    return [name for name in table.column_names if name not in (*FIRST, *LAST)]


def schema_of(names: Sequence[str]) -> pa.Schema:
    """Return the types of columns that must be there, and of dimensions.

    Raises:
        KeyError: One of those that must be there is not.
    """
    needed = {"total", *TEXTS} - {"content"}  # which older files lack
    if missing := sorted(needed - set(names)):
        raise KeyError(missing[0])
    return pa.schema([(name, pa.string() if name in TEXTS else pa.float64()) for name in names])


def row_of(
    clip: Clip, results: Mapping[str, Result], rewards: Sequence[RewardConfig]
) -> dict[str, Any]:
    """Return one row; a model that gave no score costs the total, not the others' dimensions."""
    scores = {key: result for key, result in results.items() if isinstance(result, Score)}
    errors = [f"{key}: {result}" for key, result in results.items() if isinstance(result, str)]
    dimensions, raw = named(scores, rewards)
    return {
        "video": clip.id,
        "prompt": clip.prompt,
        "total": None if errors else combine(scores, rewards).total,
        **dimensions,
        "raw": json.dumps(raw, ensure_ascii=False, default=float) if raw else None,
        "error": printable("\n".join(errors)) or None,
        "content": content_of(clip),
    }


def content_of(clip: Clip) -> str | None:
    """Return the SHA-256 (hex) of a clip's video; None if it cannot be read here."""
    if not clip.content:
        return None
    if isinstance(clip.content, bytes):
        return hashlib.sha256(clip.content).hexdigest()
    try:
        return file_digest(Path(clip.content))
    except OSError:
        return None


def rows_at(table: pa.Table, numbers: Sequence[int]) -> pa.Table:
    """Return the rows of a table by number, in this order."""
    return table.take(pa.array(numbers, pa.int64()))  # of no numbers, Arrow would guess the type


def keys_of(table: pa.Table) -> Collection[Key]:
    """Return the key of each row."""
    return list(zip(table["video"].to_pylist(), table["prompt"].to_pylist(), strict=True))

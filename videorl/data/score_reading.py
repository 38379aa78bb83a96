"""Scores that `videorl score` wrote, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.data.clips import Key
from videorl.errors import DatasetError
from videorl.files.content import digest_of
from videorl.files.inputs import Input, from_json
from videorl.types import Score

_COLUMNS = ("video", "prompt", "total", "raw", "error")
_CONTENT = "content"
_MODELS, _INPUTS = b"videorl.rewards", b"videorl.inputs"
_HOW = ("device", "batch_frames")
"""Options of models that say where, or how many at once."""


@dataclass(frozen=True, slots=True)
class ScoredClips:
    """Scores of videos by one reward model."""

    model: str
    """Its name in `videorl.rewards.MODELS`."""
    label: str
    """The user's name for it, or else its name."""
    scores: dict[Key, Score | str]
    """A score, or the reason why there is none, by video and stripped prompt."""
    made_with: str = ""
    """A digest of the model's settings and of the content that it was loaded from."""

    def of(self, key: Key) -> Score | str:
        """Return the score of a video with a prompt, or the reason why there is none."""
        video, prompt = key
        return self.scores.get((video, prompt.strip()), f"{video}: not scored")


def read_scores(path: Path) -> ScoredClips:
    """Read a file of `videorl score` (see `videorl.data.score_table`).

    Raises:
        DatasetError: It cannot be read, was not written by `videorl score`, or holds several
            models, whose totals cannot be separated.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
        metadata = table.schema.metadata or {}
        models = json.loads(metadata.get(_MODELS, b"[]"))
        inputs = from_json(json.loads(metadata.get(_INPUTS, b"{}")))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"cannot read scores from {path}: {error}") from error
    if not models or set(_COLUMNS) - set(table.column_names):
        raise DatasetError(
            f"{path} was not written by `videorl score`, or its metadata was lost when another "
            "program wrote it again"
        )
    if len(models) > 1:
        names = ", ".join(model["name"] for model in models)
        raise DatasetError(f"{path} mixes {names}; score each model into a file of its own")
    scores: dict[Key, Score | str] = {}
    for number, row in enumerate(table.to_pylist(), 1):
        try:
            scores[row["video"], (row["prompt"] or "").strip()] = _result(row)
        except (AttributeError, TypeError, ValueError) as error:
            raise DatasetError(f"{path}, row {number}: is no score ({error})") from error
    name = models[0]["name"]
    label = models[0].get("label") or name
    return ScoredClips(name, label, scores, _made_with(models[0], inputs))


def _made_with(model: Mapping[str, Any], inputs: Mapping[str, Input]) -> str:
    """Return a digest of what decides scores: of places that are named, the content."""
    contents = sorted((key, found.content.digest) for key, found in inputs.items())
    places = {found.place for found in inputs.values()}
    options = {
        name: value
        for name, value in model.get("options", {}).items()
        if name not in _HOW and str(value) not in places
    }
    facts = [model["name"], model.get("weight", 0.0), model.get("dimension_weights"), options]
    return digest_of([json.dumps(facts, sort_keys=True), *contents])


def _result(row: dict[str, Any]) -> Score | str:
    if row["error"] is not None or row["total"] is None:
        return str(row["error"])
    dimensions = {
        name: float(value)
        for name, value in row.items()
        if name not in (*_COLUMNS, _CONTENT) and value is not None
    }
    return Score(dimensions, float(row["total"]), json.loads(row["raw"] or "{}"))

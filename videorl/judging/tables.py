"""What follows from a study's answers: Parquet for analysis, and labels for `train_reward`."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from videorl.files import write_csv
from videorl.judging.questions import DIMENSIONS, OVERALL, outcomes
from videorl.judging.study import Answer, Study

ANSWERS = pa.schema(
    [
        pa.field("study", pa.string(), nullable=False),
        pa.field("pair", pa.string(), nullable=False),
        pa.field("annotator", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("choice", pa.string(), nullable=False),
        # Label Studio does not say all of these.
        pa.field("left", pa.string()),
        pa.field("seconds", pa.float64()),
        pa.field("time", pa.float64()),
        pa.field("prompt", pa.string(), nullable=False),
        pa.field("video_a", pa.string(), nullable=False),
        pa.field("video_b", pa.string(), nullable=False),
        pa.field("group_a", pa.string(), nullable=False),
        pa.field("group_b", pa.string(), nullable=False),
    ]
)
"""One row per complete answer and question."""
_PER_FILE = 200
"""Answers per Parquet file: only the newest file is written again when an answer comes."""


class Tables:
    """Writes `labels.csv` and `answers/*.parquet` of a study."""

    def __init__(self, folder: Path, study: Study) -> None:
        self._study = study
        self._labels = folder / "labels.csv"
        self._folder = folder / "answers"
        self._last: list[Answer] = []
        """Those of the newest Parquet file."""
        self._number = 0

    def rewrite(self, answers: Sequence[Answer]) -> None:
        """Write all tables anew, as after a kill they may lack what the truth has."""
        write_csv(self._labels, [_header(self._study), *map(self._label, answers)])
        self._folder.mkdir(exist_ok=True)
        starts = range(0, max(len(answers), 1), _PER_FILE)
        for self._number, start in enumerate(starts):
            self._last = list(answers[start : start + _PER_FILE])
            self._write_last()
        for stale in sorted(self._folder.glob("part-*.parquet"))[len(starts) :]:
            stale.unlink()

    def add(self, answer: Answer) -> None:
        """Add a complete answer to both tables."""
        line = io.StringIO()
        csv.writer(line).writerow(self._label(answer))
        with self._labels.open("a", encoding="utf-8", newline="") as file:
            file.write(line.getvalue())
            file.flush()
            os.fsync(file.fileno())
        if len(self._last) == _PER_FILE:
            self._last, self._number = [], self._number + 1
        self._last.append(answer)
        self._write_last()

    def _write_last(self) -> None:
        rows = [row for answer in self._last for row in self._rows(answer)]
        path = self._folder / f"part-{self._number:06d}.parquet"
        partial = path.with_name(f".{path.name}.partial")
        pq.write_table(pa.Table.from_pylist(rows, ANSWERS), partial)
        os.replace(partial, path)

    def _rows(self, answer: Answer) -> list[dict[str, Any]]:
        pair = self._study.by_id[answer.pair]
        facts = {
            "study": self._study.id,
            "pair": pair.id,
            "annotator": answer.annotator,
            "left": answer.left,
            "seconds": answer.seconds,
            "time": answer.time,
            "prompt": pair.prompt,
            "video_a": pair.a.video,
            "video_b": pair.b.video,
            "group_a": pair.a.group,
            "group_b": pair.b.group,
        }
        return [
            {**facts, "question": question, "choice": choice}
            for question, choice in answer.choices.items()
        ]

    def _label(self, answer: Answer) -> tuple[str, ...]:
        pair, found = self._study.by_id[answer.pair], outcomes(self._study.mode, answer.choices)
        labels = (found[name] for name in _dimensions(self._study))
        return (pair.a.video, pair.b.video, pair.prompt, *labels, pair.id, answer.annotator)


def _dimensions(study: Study) -> tuple[str, ...]:
    if study.mode == "overall":
        return (OVERALL,)
    return DIMENSIONS if study.mode == "dimensions" else (*DIMENSIONS, OVERALL)


def _header(study: Study) -> tuple[str, ...]:
    return ("path_A", "path_B", "prompt", *_dimensions(study), "pair", "annotator")

"""Answers as they are given: one line each, on disk before the next pair is shown.

`answers.jsonl` is the truth and is only appended to. Each line has all of a person's choices on a
pair so far, and whether that was the end; the last line of a person and pair counts. What a kill
tore is the end of a line that nobody was told to be safe: it is cut off.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from errno import ENOSPC
from pathlib import Path
from types import TracebackType
from typing import Any

from videorl.errors import RunFolderError
from videorl.files import sync
from videorl.judging.questions import A, B
from videorl.judging.study import LAYOUT, Answer, Study, check_layout
from videorl.judging.tables import Tables

logger = logging.getLogger(__name__)

FILE = "answers.jsonl"


class Answers:
    """The answers of a study, which one process at a time writes.

    Args:
        folder: Of the study.
        study: What is asked.

    Raises:
        RunFolderError: The answers are those of another study, of a newer version, or damaged.
    """

    def __init__(self, folder: Path, study: Study) -> None:
        self._study = study
        self.latest = read_answers(folder, study)
        """The last line of every person and pair."""
        self._path = folder / FILE
        _cut_torn_end(self._path)
        self._tables = Tables(folder, study)
        self._tables.rewrite(self.complete())
        self._are_tables_stale = False
        # Unbuffered: an answer is in the file, or is not.
        self._file = self._path.open("ab", buffering=0)
        self._whole: int | None = None
        """Where the file is to be cut, as half a line is behind it that could not be cut off."""
        if not self._path.stat().st_size:
            self._append({"layout": LAYOUT, "study": study.id})
            sync(folder)

    def __enter__(self) -> Answers:
        """Return itself, open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Close the file, and try once more to write tables that are behind."""
        self._file.close()
        if self._are_tables_stale:
            self._write_tables(None)

    def complete(self) -> list[Answer]:
        """Return the complete answers, in the order in which they were completed."""
        return [answer for answer in self.latest.values() if answer.is_complete]

    def counts(self) -> Counter[str]:
        """Return how many complete answers each pair has."""
        return Counter(answer.pair for answer in self.complete())

    def add(self, answer: Answer) -> None:
        """Keep an answer, on disk when this returns.

        Raises:
            RunFolderError: This person has answered the pair before, or the answer does not fit
                the study.
            OSError: It could not be written; nothing of it is kept. The tables that follow from
                the answers may fail without it: they are written again with a later answer, when
                this is closed, or when the study is opened again.
        """
        if problem := _problem(answer, self._study):
            raise RunFolderError(f"pair {answer.pair}: {problem}")
        key = answer.pair, answer.annotator
        if (known := self.latest.get(key)) and known.is_complete:
            raise RunFolderError(f"{answer.annotator} has judged pair {answer.pair} before")
        self._append(dataclasses.asdict(answer))
        self.latest.pop(key, None)
        self.latest[key] = answer
        if answer.is_complete:
            self._write_tables(answer)

    def _write_tables(self, new: Answer | None) -> None:
        """Bring the tables up to date, by the new answer alone if they lack nothing else."""
        try:
            if new is None or self._are_tables_stale:
                self._tables.rewrite(self.complete())
            else:
                self._tables.add(new)
        except OSError as error:
            self._are_tables_stale = True
            logger.error(
                "answers are safe in %s, but labels.csv and answers/ are behind (%s); they are "
                "written again with the next answer, or when the study is opened",
                self._path,
                error,
            )
        else:
            self._are_tables_stale = False

    def _append(self, content: Mapping[str, Any]) -> None:
        line = json.dumps(content, ensure_ascii=True).encode() + b"\n"
        number = self._file.fileno()
        if self._whole is not None:
            os.ftruncate(number, self._whole)
        self._whole = self._path.stat().st_size
        try:
            if self._file.write(line) != len(line):
                raise OSError(ENOSPC, os.strerror(ENOSPC), str(self._path))
            os.fsync(number)
        except OSError:
            with suppress(OSError):  # or before the next line
                os.ftruncate(number, self._whole)
                self._whole = None
            raise
        self._whole = None


def read_answers(folder: Path, study: Study) -> dict[tuple[str, str], Answer]:
    """Return the last answer of every pair and person, in the order in which they were given.

    Raises:
        RunFolderError: As `Answers`.
    """
    path = folder / FILE
    found: dict[tuple[str, str], Answer] = {}
    if not path.exists():
        return found
    *lines, torn = path.read_bytes().split(b"\n")
    if torn:
        logger.warning("%s ends in half an answer, which was never confirmed: ignored", path)
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            if number == 1:
                _check_head(path, row, study)
                continue
            answer = Answer(**row)
            if problem := _problem(answer, study):
                raise ValueError(problem)
        except (AttributeError, TypeError, ValueError) as error:
            raise RunFolderError(
                f"{path}, line {number} is damaged ({error!s:.100}); restore the file, or delete "
                "the line"
            ) from error
        found.pop((answer.pair, answer.annotator), None)
        found[answer.pair, answer.annotator] = answer
    return found


def complete_answers(folder: Path, study: Study) -> list[Answer]:
    """Return the complete answers of a study that may be open elsewhere; see `read_answers`."""
    return [answer for answer in read_answers(folder, study).values() if answer.is_complete]


def given(
    study: Study, pair: str, annotator: str, choices: Mapping[str, str], seconds: float
) -> Answer:
    """Return what a person has chosen so far, now; `dataclasses.replace` makes it complete."""
    left = study.left(study.by_id[pair], annotator)
    return Answer(pair, annotator, dict(choices), False, left, seconds, time.time())


def _check_head(path: Path, row: Any, study: Study) -> None:
    check_layout(path, row)
    if row.get("study") != study.id:
        raise RunFolderError(
            f"{path} holds the answers of another study, {row.get('study')}, not of {study.id}; "
            "put it back beside the study.json that it was made with"
        )


def _problem(answer: Answer, study: Study) -> str:
    if answer.pair not in study.by_id:
        return f"the study has no pair {answer.pair!r}"
    if answer.left not in (A, B, None):
        return f"`left` must be A, B or null, got {answer.left!r}"
    if answer.is_complete and len(answer.choices) != len(study.asks.questions):
        return f"{len(answer.choices)} of {len(study.asks.questions)} questions have an answer"
    problem = study.asks.check(answer.choices)
    return f"the study {problem}" if problem else ""


def _cut_torn_end(path: Path) -> None:
    if not path.exists():
        return
    content = path.read_bytes()
    os.truncate(path, content.rfind(b"\n") + 1)

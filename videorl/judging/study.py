"""A study: which pairs are judged, how, and by how many people. It never changes once it is made.

study.json       this
answers.jsonl    every answer as it was given: the truth
answers/         Parquet, and
labels.csv       for `videorl train_reward`: both follow from the two files above
annotators.json  names and tokens
report.json  report.md
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError
from videorl.files import as_json, write_durably
from videorl.files.content import digest_of
from videorl.judging.holding import held
from videorl.judging.questions import Mode, mode_of
from videorl.seeds import derive_seed

LAYOUT = 1
"""Of the files of a study; a higher number is of a newer version."""
FILE = "study.json"


@dataclass(frozen=True, slots=True)
class Side:
    """A video of a pair."""

    video: str
    """Absolute path."""
    group: str
    """Whose it is, which people do not see: a folder's name, or `chosen`, ..."""


@dataclass(frozen=True, slots=True)
class StudyPair:
    """Two videos of a prompt."""

    id: str
    prompt: str
    """May be empty."""
    a: Side
    b: Side

    def side(self, name: str) -> Side:
        """Return the side called A or B."""
        return self.a if name == "A" else self.b


@dataclass(frozen=True, slots=True)
class Answer:
    """What a person said of a pair."""

    pair: str
    annotator: str
    choices: Mapping[str, str]
    """By question; A and B are the study's, wherever they were on the screen."""
    is_complete: bool
    left: str | None
    """Which side, A or B, was on the left; None if another program did not say so."""
    seconds: float | None
    """Since the pair was shown; None if another program did not say so."""
    time: float | None
    """When, in seconds since 1970; None if another program did not say so."""


@dataclass(frozen=True)
class Study:
    """What people are asked."""

    mode: str
    """A name of `videorl.judging.questions.MODES`."""
    seed: int
    """Of sides and order."""
    answers_per_pair: int
    pairs: tuple[StudyPair, ...]

    @cached_property
    def id(self) -> str:
        """Return what tells the study from others: of its pairs, its mode and its seed."""
        pairs = [dataclasses.asdict(pair) for pair in self.pairs]
        return digest_of([self.mode, self.seed, pairs])[:16]

    @property
    def asks(self) -> Mode:
        """Return the questions, and the choices."""
        return mode_of(self.mode)

    @cached_property
    def by_id(self) -> Mapping[str, StudyPair]:
        """Return the pairs by their ids."""
        return {pair.id: pair for pair in self.pairs}

    def left(self, pair: StudyPair, annotator: str) -> str:
        """Return which side, A or B, an annotator sees on the left: a coin, the same each time."""
        return "AB"[derive_seed(self.seed, "left", pair.id, annotator) % 2]

    def place(self, pair: StudyPair, annotator: str) -> int:
        """Return by what an annotator's order of the pairs is sorted."""
        return derive_seed(self.seed, "order", pair.id, annotator)


def is_study(folder: Path) -> bool:
    """Tell whether a folder holds a study."""
    return (folder / FILE).is_file()


def write_study(folder: Path, study: Study) -> None:
    """Keep a study; whoever calls holds its folder."""
    content = {"layout": LAYOUT, "id": study.id, **dataclasses.asdict(study)}
    write_durably(folder / FILE, as_json(content))


def read_study(folder: Path) -> Study:
    """Return the study of a folder.

    Raises:
        RunFolderError: There is none, it is damaged, or of a newer version.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        check_layout(path, content)
        pairs = tuple(
            StudyPair(row["id"], row["prompt"], Side(**row["a"]), Side(**row["b"]))
            for row in content["pairs"]
        )
        study = Study(content["mode"], content["seed"], content["answers_per_pair"], pairs)
        mode_of(study.mode)
    except FileNotFoundError as error:
        raise RunFolderError(
            f"there is no study in {folder}: `videorl judge RUN` or `videorl judge FOLDER FOLDER` "
            "makes one"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunFolderError(f"{path} is damaged ({error!r:.100}); restore it") from error
    if study.id != content.get("id"):
        raise RunFolderError(
            f"{path} was changed after the study was made, and its answers are not those of these "
            "pairs; restore it, or make a new study with another --out"
        )
    return study


def open_study(folder: Path, study: Study) -> Study:
    """Keep a study in a folder, or go on with the same one; only `answers_per_pair` may differ.

    Raises:
        RunFolderError: The folder holds another study, or other things; or there is something to
            write while another process has it open.
    """
    if _kept(folder, study) != study:
        with held(folder):
            # Again: another process may have written meanwhile.
            if _kept(folder, study) != study:
                write_study(folder, study)
    return study


def _kept(folder: Path, study: Study) -> Study | None:
    """Return the study of a folder that may become that of `study`; None if it holds nothing."""
    if not is_study(folder):
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            raise RunFolderError(f"{folder} holds no study but other files; set another --out")
        return None
    found = read_study(folder)
    if found.id != study.id:
        parts = (("mode", found.mode, study.mode), ("seed", found.seed, study.seed))
        wrong = [f"{name} {then}, not {now}" for name, then, now in parts if then != now]
        raise RunFolderError(
            f"{folder} holds another study ({', '.join(wrong) or 'other pairs'}); go on with it as "
            f"it is by `videorl judge {folder}`, or set another --out"
        )
    return found


def check_layout(path: Path, content: Any) -> None:
    """Refuse a file of a newer version.

    Raises:
        RunFolderError: It is one.
        ValueError: It says no version.
    """
    layout = content.get("layout") if isinstance(content, dict) else None
    if not isinstance(layout, int):
        raise ValueError(f"expected a number in `layout`, got {layout!r:.50}")
    if layout > LAYOUT:
        raise RunFolderError(
            f"{path} has layout {layout}, this version of videorl reads up to {LAYOUT}: upgrade it"
        )

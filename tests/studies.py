"""Studies of tiny clips, and scripted answers, for tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from videorl.data.video_io import write_mp4
from videorl.judging.answers import Answers, given
from videorl.judging.sources import Wanted, pairs_of
from videorl.judging.study import Answer, Side, Study, StudyPair
from videorl.types import Video


def write_clip(path: Path, value: int = 0, num_frames: int = 8) -> Path:
    """Write a clip of 16 by 16 pixels, all of one grey."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_mp4(path, Video(np.full((num_frames, 16, 16, 3), value, np.uint8), 8.0))
    return path


def two_folders(root: Path, count: int) -> list[Path]:
    """Write `ours` and `theirs` with the same names and prompts; ours are brighter."""
    folders = [root / "ours", root / "theirs"]
    for folder, value in zip(folders, (200, 20), strict=True):
        for number in range(count):
            write_clip(folder / f"{number}.mp4", value)
            (folder / f"{number}.txt").write_text(f"ball <{number}>")
    return folders


def study_of(
    folders: Sequence[Path], mode: str = "overall", answers_per_pair: int = 1, seed: int = 0
) -> Study:
    """Return a study of all pairs of folders."""
    return Study(mode, seed, answers_per_pair, pairs_of(folders, Wanted(100, seed)))


def paper_study(groups: Sequence[tuple[str, str]], mode: str = "overall") -> Study:
    """Return a study without videos, of one pair per two groups, A and B."""
    pairs = (
        StudyPair(f"p{place:05d}", "", Side(f"/a{place}.mp4", a), Side(f"/b{place}.mp4", b))
        for place, (a, b) in enumerate(groups)
    )
    return Study(mode, 0, 1, tuple(pairs))


def answer(study: Study, pair: str, person: str, **choices: str) -> Answer:
    """Return a complete answer."""
    return dataclasses.replace(given(study, pair, person, choices, 1.5), is_complete=True)


def answer_all(answers: Answers, study: Study, person: str, preferred: str) -> None:
    """Let a person prefer a group on every question of every pair."""
    names = [question.name for question in study.asks.questions]
    for pair in study.pairs:
        side = "A" if pair.a.group == preferred else "B"
        answers.add(answer(study, pair.id, person, **dict.fromkeys(names, side)))

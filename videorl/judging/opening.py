"""A study while people answer it: its folder is held, its answers are open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from videorl.judging.answers import Answers
from videorl.judging.holding import held
from videorl.judging.study import Study


@contextmanager
def opened(folder: Path, study: Study) -> Iterator[Answers]:
    """Be the only process that writes answers of a study inside the block.

    Raises:
        RunFolderError: Another process does, or the answers cannot be read; see `Answers`.
    """
    with held(folder), Answers(folder, study) as answers:
        yield answers

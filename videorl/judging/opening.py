"""A study while people answer it: its folder is held, its answers are open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from videorl.errors import RunFolderError
from videorl.judging.answers import Answers
from videorl.judging.study import Study
from videorl.run.lock import hold, is_held


@contextmanager
def opened(folder: Path, study: Study) -> Iterator[Answers]:
    """Be the only process that writes answers of a study inside the block.

    Raises:
        RunFolderError: Another process does, or the answers cannot be read; see `Answers`.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder))
        except RunFolderError as error:
            if not is_held(folder):
                raise  # it cannot be written
            raise RunFolderError(
                f"the study {folder} is open in another process; give people the page of that "
                "server, or stop it first"
            ) from error
        yield stack.enter_context(Answers(folder, study))

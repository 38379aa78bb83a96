"""Who writes into the folder of a study: one process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from videorl.errors import RunFolderError
from videorl.run.lock import hold, is_held


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the only process that writes into a study's folder inside the block; it is created.

    Raises:
        RunFolderError: Another process does, or the folder cannot be written.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder))
        except RunFolderError as error:
            if not is_held(folder):
                raise RunFolderError(
                    f"cannot write into the study's folder {folder} ({error.__cause__}); set --out "
                    "to a folder that can be written"
                ) from error
            raise RunFolderError(
                f"the study {folder} is open in another process; give people the page of that "
                "server, or stop it first"
            ) from error
        yield

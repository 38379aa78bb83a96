"""The small files of a run folder, read again only when they change."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from videorl.errors import RunFolderError
from videorl.report.contents import RunContents, read_run
from videorl.run.folder import RunFolder
from videorl.run.overview import State, state_of


@dataclass(frozen=True)
class RunState:
    """What a run says of itself now."""

    contents: RunContents
    state: State
    """`running` = a driver holds the folder, `finished`, or `stopped` before the end."""
    updated: float
    """When its metrics were last written, in seconds since 1970; 0 = never."""

    @property
    def num_done(self) -> int:
        """Steps that are done."""
        return self.contents.rows[-1]["step"] + 1 if self.contents.rows else 0


class RunReader:
    """Reads one run folder; what did not change is not read again.

    Args:
        root: The run folder.
    """

    def __init__(self, root: Path) -> None:
        self.folder = RunFolder(root)
        self._reading = threading.Lock()
        self._known: tuple[tuple[object, ...], RunContents] | None = None
        """What the files' times and sizes were, and what they held."""

    def read(self) -> RunState:
        """Return the state of the run; may be called by several threads.

        Raises:
            RunFolderError: A file cannot be read.
        """
        folder = self.folder
        contents = self._read()
        state = state_of(folder.root, contents.num_steps, contents.summary)
        metrics = sign_of(folder.metrics)
        return RunState(contents, state, metrics[1] / 1e9 if metrics else 0.0)

    def _read(self) -> RunContents:
        folder = self.folder
        files = (
            folder.config, folder.metrics, folder.summary, folder.evaluation / "videos.json"
        )  # fmt: skip
        # The others wait: they would read the same again.
        with self._reading:
            sign = tuple(sign_of(file) for file in files)
            if self._known is None or sign != self._known[0]:
                try:
                    self._known = sign, read_run(folder.root)
                except OSError as error:
                    raise RunFolderError(f"{folder.root} cannot be read: {error}") from error
            return self._known[1]


def sign_of(file: Path) -> tuple[int, int] | None:
    """Return what changes when a file does, its size and time in ns; None = it is not there."""
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_size, facts.st_mtime_ns

"""A run that is being watched: what all browsers that look at it share."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

from videorl.files import parse_yaml
from videorl.watch.index import CHUNK, FIRST, Index
from videorl.watch.run_state import RunReader

logger = logging.getLogger(__name__)


class WatchedRun:
    """One run folder.

    Args:
        root: The folder.
        files: Quoted path of its files on this server, such as `/files/my_run`.
        name: What it is called: the folder's name, or its path below that of all runs.
    """

    def __init__(self, root: Path, files: str, name: str) -> None:
        self.root = root
        self.name = name
        self.files = files
        self.reader = RunReader(root)
        self.archive = self.reader.folder.archive
        self.index = Index(self.archive)
        self.num_left = 0
        """Steps of the archive that are not in the index yet."""
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def refresh(self) -> None:
        """Read the newest steps, and see to it that the others are read meanwhile."""
        with self._starting:
            self.num_left = self.index.refresh(FIRST)
            if self.num_left and (self._thread is None or not self._thread.is_alive()):
                # No daemon: a thread that is inside DuckDB as Python ends aborts the process.
                self._thread = threading.Thread(target=self._catch_up, name="index")
                self._thread.start()

    def settings(self) -> dict[str, Any]:
        """Return the resolved recipe, as it was written.

        Raises:
            RunFolderError: A file of the run cannot be read.
        """
        content = parse_yaml(self.reader.read().contents.config)
        return content if isinstance(content, dict) else {}

    def _catch_up(self) -> None:
        while self.num_left and threading.main_thread().is_alive():
            try:
                self.num_left = self.index.refresh(CHUNK)
            except Exception:
                logger.exception("the archive %s cannot be read further", self.archive)
                return

"""Folders in an object store, with a copy of what was used on this machine."""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from videorl.errors import CheckpointError, StoreLostError
from videorl.storage.copies import copy_of
from videorl.storage.place import Place

logger = logging.getLogger(__name__)

_LONGEST_PAUSE_S = 15.0
_TOLD_S = 30.0
_AFTER = "after.json"
"""Beside folders that were kept: the newest one that was in the store then."""


class RemoteFolder:
    """Named folders of files below one URI; a folder counts once its last file is there.

    Args:
        uri: What pyarrow or fsspec opens.
        patience_s: How long an upload waits for a store that does not answer.

    Raises:
        ConfigError: Nobody knows such a URI.
    """

    LAST = "state.json"
    """Uploaded last and deleted first."""

    def __init__(self, uri: str, patience_s: float = 0.0) -> None:
        self._place = Place(uri.rstrip("/"), "checkpoint.location", CheckpointError)
        self._patience_s = patience_s
        # One for each process: ranks that restore together must not write into each other's.
        self.copy = Path(tempfile.mkdtemp(prefix="videorl-checkpoints-"))
        atexit.register(shutil.rmtree, self.copy, ignore_errors=True)
        self._newest: str | None = None

    @property
    def kept(self) -> Path:
        """Where folders are that could not be uploaded."""
        return copy_of(self._place.uri, "working")

    def check_writable(self) -> None:
        """Write a small object and remove it.

        Raises:
            CheckpointError: That is not possible.
        """
        self._place.check_writable()

    def complete(self) -> list[str]:
        """Return the names of complete folders.

        Raises:
            CheckpointError: One has a name that would climb out, or the store is out of reach.
        """
        parts = [name.split("/") for name in self._place.list()]
        found = sorted(part[0] for part in parts if len(part) == 2 and part[1] == self.LAST)
        self._newest = found[-1] if found else None
        return found

    def upload(self, folder: Path) -> None:
        """Copy a local folder under its own name; if that fails, it is moved to `kept`.

        Raises:
            CheckpointError: It could not be written.
        """
        try:
            self._patiently(folder.name, lambda: self._upload(folder))
        except CheckpointError as error:
            raise type(error)(f"{error}; {self.keep(folder)}") from error
        self._newest = folder.name

    def bring_kept(self) -> list[str]:
        """Upload what was kept on this machine, if nothing came into the store since.

        Returns:
            Names of the folders.

        Raises:
            StoreLostError: The store does not answer.
        """
        folders = sorted(self.kept.glob("step-*")) if self.kept.is_dir() else []
        if not folders:
            return []
        try:
            after = json.loads((self.kept / _AFTER).read_text())
        except (OSError, ValueError):
            after = ""
        complete = self.complete()
        if after != (complete[-1] if complete else None):
            logger.warning(
                "%s has checkpoints that could not be stored then, but %s has gone on since: they "
                "are left where they are",
                self.kept, self._place.uri,
            )  # fmt: skip
            return []
        for folder in folders:
            self._upload(folder)
        shutil.rmtree(self.kept)
        return [folder.name for folder in folders]

    def withdraw(self, name: str) -> None:
        """Make a folder incomplete, before any of its files is written anew."""
        self._patiently(name, lambda: self._place.delete(f"{name}/{self.LAST}"))

    def add(self, folder: Path, name: str) -> None:
        """Copy the files of a local folder into the folder `name`; other files there stay."""
        self._patiently(name, lambda: self._upload_into(name, folder))

    def download(self, folder: Path) -> None:
        """Copy the remote folder of the same name to `folder`, unless it was written here."""
        if (folder / self.LAST).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name in self._place.list(folder.name):
            self._place.download(name, folder.parent / name)

    def delete(self, name: str) -> None:
        """Remove one folder."""
        self._place.delete(f"{name}/{self.LAST}")
        self._place.delete_folder(name)

    def _upload(self, folder: Path) -> None:
        self._place.delete(f"{folder.name}/{self.LAST}")
        self._upload_into(folder.name, folder)

    def _upload_into(self, name: str, folder: Path) -> None:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        paths.sort(key=lambda path: path.name == self.LAST)
        for path in paths:
            self._place.upload(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def _patiently(self, name: str, do: Callable[[], None]) -> None:
        """Do it, and again while the store is away, as long as patience lasts."""
        begun, pause, told = time.monotonic(), 0.5, 0.0
        while True:
            try:
                return do()
            except StoreLostError as error:
                if time.monotonic() - begun + pause > self._patience_s:
                    raise
                if time.monotonic() - told > _TOLD_S:
                    told = time.monotonic()
                    logger.warning("%s waits for its store: %s", name, error)
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_S)

    def keep(self, folder: Path) -> str:
        """Move a folder that could not be uploaded to where the next start looks; say so."""
        kept = self.kept / folder.name
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not any(self.kept.glob("step-*")):
            partial = self.kept / f".{_AFTER}.partial"
            partial.write_text(json.dumps(self._newest))
            os.replace(partial, self.kept / _AFTER)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(folder, kept)
        return f"it is kept in {kept}, and stored when the same command starts again there"

"""Folders in an object store, with a copy of what was used on this machine."""

from __future__ import annotations

import atexit
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from videorl.errors import CheckpointError, StoreLostError, VideorlError
from videorl.files import write_json
from videorl.files.steps import step_of
from videorl.files.superseded import set_aside
from videorl.storage.copies import copy_of
from videorl.storage.patience import patiently
from videorl.storage.place import Place, is_safe
from videorl.storage.shared import fetch_shared

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_AFTER = "after.json"
"""Beside folders that were kept: the newest one that was in the store then."""


class RemoteFolder:
    """Named folders of files below one URI; a folder counts once its last file is there.

    Args:
        uri: What pyarrow or fsspec opens.
        patience_s: How long a call waits for a store that does not answer.
        is_ours: Raises BusyError where another driver took the run over: a folder must not be
            written, or count, after that. Other errors say that nobody knows.

    Raises:
        ConfigError: Nobody knows such a URI.
    """

    LAST = "state.json"
    """Uploaded last and deleted first."""

    def __init__(
        self,
        uri: str,
        patience_s: float = 0.0,
        is_ours: Callable[[], None] = lambda: None,
    ) -> None:
        place = Place(uri.rstrip("/"), "checkpoint.location", CheckpointError, patience_s)
        self._place = place.with_patience(0)  # it is for all of a folder, not for each file
        self._patience_s, self._is_ours = patience_s, is_ours
        # One for each process: what it writes.
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
        self._patiently("checkpoints", self._place.check_writable)

    def complete(self) -> list[str]:
        """Return the names of complete folders.

        Raises:
            CheckpointError: One has a name that would climb out, or the store is out of reach.
        """
        stored = self._patiently("checkpoints", self._place.list)
        parts = [name.split("/") for name in stored]
        found = [part[0] for part in parts if len(part) == 2 and part[1] == self.LAST]
        found.sort(key=_in_order)
        self._newest = found[-1] if found else None
        return found

    def unfinished(self) -> list[str]:
        """Return the names of folders without their last file: whoever wrote them was cut off."""
        names = self._patiently("checkpoints", self._place.list)
        folders = {name.partition("/")[0] for name in names if "/" in name}
        return sorted(folder for folder in folders if f"{folder}/{self.LAST}" not in names)

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

        What was kept beside an earlier end of the run, or is not whole here, is moved aside.

        Returns:
            Names of the folders.

        Raises:
            StoreLostError: The store does not answer.
        """
        folders = self._kept_folders()
        if not folders:
            return []
        complete = self.complete()
        newest = complete[-1] if complete else None
        # One of them is the newest itself if the start that brought it was cut off.
        if newest not in (self._kept_after(), *(folder.name for folder in folders)):
            self._set_kept_aside(f"{self._place.uri} has gone on since")
            return []
        brought = list[str]()
        for folder in folders:
            if lacking := self._patiently(folder.name, partial(self._lacking, folder)):
                self._set_kept_aside(f"{folder.name} has no {lacking}, which another machine wrote")
                break
            self._patiently(folder.name, partial(self._upload, folder))
            self._newest = folder.name
            self._note_kept_after()
            shutil.rmtree(folder)
            brought.append(folder.name)
        shutil.rmtree(self.kept, ignore_errors=True)
        return brought

    def forget_kept(self, unwanted: Callable[[str], bool]) -> None:
        """Remove folders that are kept on this machine, by their names."""
        for folder in self.kept.glob("step-*"):
            if unwanted(folder.name):
                shutil.rmtree(folder)

    def withdraw(self, name: str) -> None:
        """Make a folder incomplete, before any of its files is written anew."""
        self._patiently(name, lambda: self._change(partial(self._delete, name)))

    def add(self, folder: Path, name: str) -> None:
        """Copy the files of a local folder into the folder `name`; other files there stay."""
        self._patiently(name, lambda: self._upload_into(name, folder))

    def local(self, folder: Path) -> Path:
        """Return where the files of a folder are on this machine, which has them after that.

        Args:
            folder: Where it is if this process wrote it; otherwise it is fetched, see
                `videorl.storage.shared`.
        """
        if (folder / self.LAST).exists():
            return folder
        return self._patiently(folder.name, lambda: fetch_shared(self._place, folder.name))

    def remove(self, name: str) -> None:
        """Remove one folder, whatever has to be waited for."""
        self._patiently(name, lambda: self.delete(name))

    def delete(self, name: str) -> None:
        """Remove one folder, if the store answers now."""
        self._change(partial(self._delete, name))
        if self._place.list(name):
            self._place.delete_folder(name)

    def _delete(self, name: str) -> None:
        self._place.delete(f"{name}/{self.LAST}")

    def _upload(self, folder: Path) -> None:
        """Upload what belongs to a folder; what lies there of an earlier attempt goes first."""
        self._change(partial(self._delete, folder.name))
        files = _files_of(folder)
        for name in self._place.list(folder.name):
            if name.removeprefix(f"{folder.name}/") not in files:
                self._place.delete(name)
        for name in files:
            if (folder / name).is_file():  # others are another rank's, and there already
                self._upload_file(folder / name, f"{folder.name}/{name}")
        self._upload_file(folder / self.LAST, f"{folder.name}/{self.LAST}")

    def _change(self, do: Callable[[], object]) -> None:
        """Change a folder if the run is still this driver's.

        Raises:
            CheckpointError: It is not, or nobody may look.
        """
        try:
            self._is_ours()
        except StoreLostError:
            raise
        except VideorlError as error:
            raise CheckpointError(f"{self._place.uri} is left as it is: {error}") from error
        do()

    def _upload_into(self, name: str, folder: Path) -> None:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self._upload_file(path, f"{name}/{path.relative_to(folder).as_posix()}")

    def _upload_file(self, path: Path, name: str) -> None:
        # Of a large checkpoint this takes long: another driver may have all of it by then.
        self._change(partial(self._place.upload, path, name))

    def _lacking(self, folder: Path) -> str | None:
        """Return a file that a kept folder has neither here nor in the store."""
        stored = self._place.list(folder.name)
        for name, size in _files_of(folder).items():
            found = stored.get(f"{folder.name}/{name}")
            if not (folder / name).is_file() and (found is None or found.size != size):
                return name
        return None

    def _patiently(self, name: str, do: Callable[[], _T]) -> _T:
        return patiently(do, self._patience_s, name)

    def keep(self, folder: Path) -> str:
        """Move a folder that could not be uploaded to where the next start looks; say so.

        Files of the same folder that other ranks on this machine have kept stay.
        """
        kept = self.kept / folder.name
        others = [path for path in self._kept_folders() if path.name != folder.name]
        if others and self._kept_after() != self._newest:
            self._set_kept_aside(f"{self._place.uri} has gone on since", but=folder.name)
            others = []
        if not others:
            self._note_kept_after()
        self.keep_part(folder, folder.name)
        return f"it is kept in {kept}, and stored when the same command starts again there"

    def keep_part(self, folder: Path, name: str) -> None:
        """Move the files of a local folder into the kept folder `name`."""
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in sorted(paths, key=lambda path: path.name == self.LAST):
            target = self.kept / name / path.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)
        shutil.rmtree(folder, ignore_errors=True)

    def _kept_folders(self) -> list[Path]:
        """Return the folders that are kept on this machine, oldest first."""
        found = [path.parent for path in self.kept.glob(f"step-*/{self.LAST}")]
        return sorted(found, key=lambda path: _in_order(path.name))

    def _kept_after(self) -> str | None:
        """Return the newest folder that was in the store before those that are kept.

        None = there was none; empty = nobody knows.
        """
        try:
            return json.loads((self.kept / _AFTER).read_text())["after"]
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _note_kept_after(self) -> None:
        write_json(self.kept / _AFTER, {"after": self._newest})

    def _set_kept_aside(self, why: str, but: str = "") -> None:
        aside = set_aside(self.kept, {but})
        logger.warning("checkpoints that could not be stored then are in %s: %s", aside, why)


def _in_order(name: str) -> tuple[int, str]:
    return step_of(name) or 0, name


def _files_of(folder: Path) -> dict[str, int]:
    """Return the files of a folder, wherever they are, and their lengths."""
    files = dict(json.loads((folder / RemoteFolder.LAST).read_text())["files"])
    if climbing := [name for name in files if not is_safe(name)]:
        raise CheckpointError(f"{folder} names {climbing[0]!r}, a file outside of its folder")
    return files

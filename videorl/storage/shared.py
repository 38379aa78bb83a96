"""Folders of a store that all processes of a machine read from one copy.

Whoever comes first fetches it, and the others wait for that; the last that reads it removes it.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from videorl.errors import CheckpointError, VideorlError
from videorl.storage.copies import copy_of
from videorl.storage.place import Place, Stored
from videorl.storage.threads import each

logger = logging.getLogger(__name__)

_KIND = "shared"

_reading: dict[Path, TextIO | None] = {}
"""Copies that this process reads -> the file whose lock says so to others; None = to nobody, as no
other process knows the copy."""


def fetch_shared(place: Place, name: str) -> Path:
    """Return a copy of what is now in a folder of a store, for this process until `let_go`.

    What an attempt has fetched before the store went away, the next one need not.

    Args:
        place: The store.
        name: Of the folder.

    Raises:
        StoreLostError: The store does not answer.
        CheckpointError: The copy cannot be written, on a full disk for instance.
    """
    stored = place.list(name)
    told = json.dumps([[each, found.size, found.mtime_ns] for each, found in stored.items()])
    # Written anew under the same name it is another one.
    version = hashlib.sha256(told.encode()).hexdigest()[:12]
    copies = copy_of(place.uri, _KIND)
    copy = copies / version
    try:
        with _writable(copies), _alone(copies):
            if copy not in _reading:
                _remove_unread(copies, version)
                _fetch(place, stored, copy)
                _reading[copy] = _locked(copy, fcntl.LOCK_SH)
            return copy / name
    except _NoLocksError as error:
        logger.warning("%s has no file locks (%s): this process fetches its own", copies, error)
    own = Path(tempfile.mkdtemp(prefix="videorl-checkpoint-"))
    try:
        with _writable(own):
            _fetch(place, stored, own)
    except BaseException:
        shutil.rmtree(own, ignore_errors=True)
        raise
    _reading[own] = None
    return own / name


def let_go(copy: Path) -> None:
    """Remove a copy of `fetch_shared`, unless another process reads it."""
    if (folder := copy.parent) not in _reading:
        return
    if (lock := _reading.pop(folder)) is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    with suppress(_NoLocksError), _alone(folder.parent):
        lock.close()
        _remove_unread(folder.parent, "")


def _fetch(place: Place, stored: Mapping[str, Stored], root: Path) -> None:
    """Fetch what is not there yet; a file is there once it is whole.

    Nothing stays where that was impossible: a disk may be full.
    """
    try:
        _download(place, stored, root)
    except OSError as error:
        if not isinstance(error, VideorlError):
            shutil.rmtree(root, ignore_errors=True)
        raise


def _download(place: Place, stored: Mapping[str, Stored], root: Path) -> None:
    here = {name for name, found in stored.items() if _is_here(root / name, found)}
    lacking = [name for name in stored if name not in here]
    each(lambda name: place.download(name, root / name), lacking)


def _is_here(path: Path, stored: Stored) -> bool:
    # Some stores tell no size. A machine that lost its power may have lost the end of a file.
    return path.is_file() and stored.size in (0, path.stat().st_size)


def _remove_unread(copies: Path, wanted: str) -> None:
    """Remove what nobody reads: its processes have ended, perhaps by being killed."""
    for folder in list(copies.iterdir()):
        if not folder.is_dir() or folder.name == wanted:
            continue
        with suppress(BlockingIOError, PermissionError):  # NFS says the latter
            lock = _locked(folder, fcntl.LOCK_EX)
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()
            Path(lock.name).unlink(missing_ok=True)


def _locked(copy: Path, kind: int) -> TextIO:
    """Return the open lock file of a copy, at once.

    It is a file, as folders have no locks that other machines see where they share the copies, and
    beside the copy, as NFS does not remove a folder with an open file. Only who is `_alone` asks.

    Raises:
        OSError: Somebody else reads the copy.
    """
    lock = (copy.parent / f".{copy.name}.lock").open("a+")
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BaseException:
        lock.close()
        raise
    return lock


class _NoLocksError(Exception):
    """The file system of the copies has none."""


@contextmanager
def _alone(copies: Path) -> Iterator[None]:
    """Be the only process that changes the copies of a place inside the block."""
    copies.mkdir(parents=True, exist_ok=True)
    with (copies / ".lock").open("a") as lock:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                logger.info("another process fetches into %s: waiting for it", copies)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _NoLocksError(str(error.strerror)) from error
        yield


@contextmanager
def _writable(copies: Path) -> Iterator[None]:
    """Say what to do where copies cannot be written.

    Raises:
        CheckpointError: It cannot.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, VideorlError):
            raise
        raise CheckpointError(
            f"a checkpoint cannot be copied to {copies} ({error}): make room there, or set "
            "VIDEORL_COPIES to another folder"
        ) from error


def _let_all_go() -> None:
    for copy in list(_reading):
        let_go(copy / "any")


atexit.register(_let_all_go)

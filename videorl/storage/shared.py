"""Folders of a store that all processes of a machine read from one copy.

Whoever comes first fetches it, and the others wait for that; the last that reads it removes it.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from videorl.storage.copies import copy_of
from videorl.storage.place import Place

logger = logging.getLogger(__name__)

_KIND = "shared"
_WHOLE = ".whole"
"""In a copy that has everything."""
_THREADS = 8

_reading: dict[Path, int] = {}
"""Copies that this process reads -> descriptor of the folder, whose lock says so to others."""


def fetch_shared(place: Place, name: str) -> Path:
    """Return a copy of what is now in a folder of a store, for this process until `let_go`.

    Args:
        place: The store.
        name: Of the folder.

    Raises:
        StoreLostError: The store does not answer.
        OSError: There is no room for it.
    """
    stored = place.list(name)
    told = json.dumps([[each, found.size, found.mtime_ns] for each, found in stored.items()])
    # Written anew under the same name it is another one.
    version = hashlib.sha256(told.encode()).hexdigest()[:12]
    copies = copy_of(place.uri, _KIND)
    copy = copies / version / name
    try:
        with _alone(copies):
            if copy.parent in _reading:
                return copy
            _remove_unread(copies, version)
            copy.mkdir(parents=True, exist_ok=True)
            if not (copy.parent / _WHOLE).exists():
                _fetch(place, list(stored), copy.parent)
                (copy.parent / _WHOLE).touch()
            descriptor = os.open(copy.parent, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            _reading[copy.parent] = descriptor
            return copy
    except _NoLocksError as error:
        logger.warning("%s has no file locks (%s): this process fetches its own", copies, error)
        own = Path(tempfile.mkdtemp(prefix="videorl-checkpoint-"))
        atexit.register(shutil.rmtree, own, ignore_errors=True)
        _fetch(place, list(stored), own)
        return own / name


def let_go(copy: Path) -> None:
    """Remove a copy of `fetch_shared`, unless another process reads it."""
    if (descriptor := _reading.pop(copy.parent, None)) is None:
        return
    with suppress(_NoLocksError), _alone(copy.parent.parent):
        os.close(descriptor)
        _remove_unread(copy.parent.parent, "")


def _fetch(place: Place, names: list[str], root: Path) -> None:
    with ThreadPoolExecutor(_THREADS, "store") as threads:
        for answer in [threads.submit(place.download, name, root / name) for name in names]:
            answer.result()


def _remove_unread(copies: Path, wanted: str) -> None:
    """Remove what nobody reads: its processes have ended, perhaps by being killed."""
    for folder in copies.iterdir():
        if not folder.is_dir() or folder.name == wanted:
            continue
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


class _NoLocksError(Exception):
    """The file system of the copies has none."""


@contextmanager
def _alone(copies: Path) -> Iterator[None]:
    """Be the only process that changes the copies of a place inside the block."""
    copies.mkdir(parents=True, exist_ok=True)
    with (copies / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            raise _NoLocksError(str(error.strerror)) from error
        yield


def _let_all_go() -> None:
    for copy in list(_reading):
        let_go(copy / "any")


atexit.register(_let_all_go)

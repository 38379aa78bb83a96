"""One driver per run folder, also where file locks reach no further than one machine.

A file lock (flock) settles it between processes of one machine, and on network file systems that
carry locks to their server (NFS by default; Lustre mounted with `flock`). The system frees it
however its holder ends. Elsewhere two machines could hold "the" lock at once; so the holder also
writes down who it is and keeps changing that file, and a driver on another machine watches it for
a while: no clock is compared, only whether it changes.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from videorl.errors import BusyError, RunFolderError
from videorl.run.background import repeating
from videorl.storage.reading import held

logger = logging.getLogger(__name__)

_LOCK, _DRIVER, _PARTIAL = ".lock", ".driver", ".driver.partial"
FILES = frozenset({_LOCK, _DRIVER, _PARTIAL})
"""What lies in a folder that is held."""
_BEAT_S = 5.0
_SIGN_LASTS_S = 120.0
"""A sign that is older is nobody's, for those who only look; clocks may differ by less."""
_LOOKS_S = 1.0
"""How long others may hold the lock who only look whether it is held."""
_PATIENCE_S = 20.0
"""How long the sign of life of another machine may stand still before it counts as dead."""


@contextmanager
def hold(root: Path, beat_s: float = _BEAT_S, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Be the only driver of a folder inside the `with` block; the folder is created.

    Raises:
        RunFolderError: It cannot be created or written to, or another driver works in it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / _LOCK).open("a")
    except OSError as error:
        raise _unwritable(root, error) from error
    with lock:
        is_final = _locked(lock, root)
        _wait_for_death(root, is_final, patience_s)
        try:
            _sign(root, 0)
        except OSError as error:
            raise _unwritable(root, error) from error
        beats = itertools.count(1)

        def live() -> None:
            with suppress(OSError):  # a full disk is noticed, and said, by whoever must write
                _sign(root, next(beats))

        try:
            with repeating(live, beat_s, "run lock"):
                yield
        finally:
            _signature(root).unlink(missing_ok=True)


def is_held(root: Path) -> bool:
    """Tell whether a driver works in a folder, by its file lock or, without one, by its sign.

    Of a copy of a run in a store: whether one did when the copy was last fetched.
    """
    if (is_far := held(root)) is not None:
        return is_far
    try:
        with (root / _LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False  # it was never held
    except OSError:
        pass  # no locks here: only the sign of life tells
    else:
        if (_read(root) or {}).get("machine") in (None, _machine()):
            return False
    # Left by a machine that died, or by its life before the last start, the sign is old.
    with suppress(OSError):
        return time.time() - _signature(root).stat().st_mtime < _SIGN_LASTS_S
    return False


def _locked(lock: IO[str], root: Path) -> bool:
    """Take the file lock; return whether its file system has such a thing."""
    end = time.monotonic() + _LOOKS_S
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > end:
                    raise _busy(root) from error
                time.sleep(0.05)
    except OSError as error:
        logger.warning("%s has no file locks (%s): relying on signs of life", root, error.strerror)
        return False
    return True


def _wait_for_death(root: Path, is_final: bool, patience_s: float) -> None:
    """Return when nobody else gives signs of life; only other machines can, under a lock."""
    first = _read(root)
    if first is None or (is_final and first.get("machine") == _machine()):
        return
    logger.warning("%s was left by %s; is it alive?", root, _name(first))
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        time.sleep(min(0.2, patience_s / 4))
        now = _read(root)
        if now is None:
            return
        if now != first:
            raise _busy(root)


def _sign(root: Path, beat: int) -> None:
    signature = {"machine": _machine(), "host": socket.gethostname(), "pid": os.getpid()}
    partial = root / _PARTIAL
    partial.write_text(json.dumps({**signature, "beat": beat}))
    os.replace(partial, _signature(root))


def _read(root: Path) -> dict[str, Any] | None:
    try:
        return json.loads(_signature(root).read_text())
    except (OSError, ValueError):
        return None


def _signature(root: Path) -> Path:
    return root / _DRIVER


def _machine() -> str:
    """Return what differs between machines, and between two lives of one."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _name(signature: dict[str, Any]) -> str:
    return f"process {signature.get('pid')} on {signature.get('host')}"


def _busy(root: Path) -> BusyError:
    holder = _read(root)
    who = f" ({_name(holder)})" if holder else ""
    return BusyError(
        f"another driver is working in {root}{who}; wait for it, or set another run_dir"
    )


def _unwritable(root: Path, error: OSError) -> RunFolderError:
    return RunFolderError(
        f"cannot write into the run folder {root}: {error.strerror or error}; set run_dir to a "
        "folder on storage that this machine can reach and write to"
    )

"""What the exit code of every command says, and which error ends with which.

A program that starts commands again (`jobs/retry.py`, a job controller) needs this alone: only
`TRANSIENT` is worth another try. docs/operations.md shows the table.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from enum import IntEnum

from videorl.errors import (
    BusyError,
    LearnerLostError,
    PoolLostError,
    StoppedError,
    StoreLostError,
    UnreachableError,
    VideorlError,
    WorkLostError,
)


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    FOUND_WRONG = 1
    REFUSED = 2
    LEARNED_NOTHING = 3
    TRANSIENT = 75  # EX_TEMPFAIL of sysexits.h
    STOPPED = 130  # shells use it for Ctrl-C


MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.FOUND_WRONG: "it ran, but something is wrong: contradictions, nothing scored, a "
    "broken installation, a failed run; or a traceback, which is a bug",
    ExitCode.REFUSED: "an error that you can fix, told in one line; the same command fails again",
    ExitCode.LEARNED_NOTHING: "a training that ended without having learned anything",
    ExitCode.TRANSIENT: "something was lost that may come back (nodes, storage, room on a disk, "
    "another driver's lock): start the same command again",
    ExitCode.STOPPED: "stopped by Ctrl-C or SIGTERM; the same command goes on",
}

_TRANSIENT = (
    BusyError,
    LearnerLostError,
    PoolLostError,
    StoreLostError,
    UnreachableError,
    WorkLostError,
    ConnectionError,
    TimeoutError,
)
_LASTING = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.EADDRINUSE,
        errno.EINVAL,
        errno.ENOTEMPTY,
    }
)
"""What the system says of a path or a port that somebody has to change; anything else may pass: a
full disk, an input/output error, a stale handle, a server that does not answer."""


def code_of(error: BaseException) -> ExitCode | None:
    """Return the code that a command ends with; None = a bug, whose traceback is wanted."""
    if isinstance(error, KeyboardInterrupt | StoppedError):
        return ExitCode.STOPPED
    if isinstance(error, BrokenPipeError):  # of whoever reads what is printed
        return None
    if isinstance(error, _TRANSIENT) or _is_cluster_lost(error):
        return ExitCode.TRANSIENT
    numbers = list(_system_errors(error))
    if any(number not in _LASTING for number in numbers):
        return ExitCode.TRANSIENT
    is_told = isinstance(error, VideorlError) or bool(numbers)
    return ExitCode.REFUSED if is_told else None


def _system_errors(error: BaseException | None) -> Iterator[int]:
    """Yield what the system said, of an error and, if it was raised on purpose, of its causes."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            yield error.errno
        error = error.__cause__ if isinstance(error, VideorlError) else None


def _is_cluster_lost(error: BaseException) -> bool:
    """Tell whether Ray lost an actor, a node or its head; by name, as Ray may not be loaded.

    A `RayTaskError` is what a task raised, so it says nothing of the cluster.
    """
    names = {f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__}
    return "ray.exceptions.RayError" in names and "ray.exceptions.RayTaskError" not in names

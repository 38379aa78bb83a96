"""A time limit per file that holds whatever a decoder does."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import TypeVar

from videorl.errors import VideoError
from videorl.videos.limits import DEADLINE_S

logger = logging.getLogger(__name__)

T = TypeVar("T")

_GRACE_S = 1.0
"""For work that asks `check` to notice by itself that its time is up, and to close the file."""
_given_up: set[tuple[str, int, int, float]] = set()
"""Path, size and time of files, with the seconds that they had: a batch with a bad file is tried
again in parts, which must not take that long each time."""


class Deadline:
    """The time that one file may take, over all calls that read it.

    Work runs in a thread of its own. Between packets it asks `check`, which ends it. Work that is
    stuck deeper, in a system call or in a decoder, cannot be ended from outside: its thread is left
    behind, and the caller goes on. Ctrl-C is heard at once, since the caller only waits.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        """Give `seconds` to a file or folder, in which calls are running; time between is free.

        Raises:
            OSError: It cannot be looked at.
            VideoError: It was given up before with as many seconds, and has not changed since.
        """
        found = path.stat()
        self.name = str(path)
        self._seconds = seconds
        self._key = (str(path.absolute()), found.st_size, found.st_mtime_ns, seconds)
        self._left, self._end = seconds, 0.0
        if self._key in _given_up:
            raise self.expired()

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns, or raise what it raises.

        Raises:
            VideoError: The time was up before.
        """
        if self._left <= 0:
            raise self.expired()
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        started = time.monotonic()
        self._end = started + self._left
        Thread(target=run, daemon=True, name=f"decode {self.name}").start()
        try:
            wait_for([result], self._left + _GRACE_S)
        finally:
            self._left -= time.monotonic() - started
            if not result.done():
                # Also after Ctrl-C: the thread may still use the decoder, so nobody else may.
                self._end = self._left = 0.0
        if not result.done():
            logger.warning("a thread that decodes %s is stuck and left behind", self.name)
            raise self.expired()
        return result.result()

    def check(self) -> None:
        """End the work that calls this if its time is up.

        Raises:
            VideoError: It is.
        """
        if time.monotonic() > self._end:
            raise self.expired()

    @property
    def seconds_left(self) -> float:
        """Seconds that the running call still has, at least a little."""
        return max(self._end - time.monotonic(), 0.01)

    def expired(self) -> VideoError:
        """Return the error that says so; from now on every call raises it."""
        self._left = 0.0
        _given_up.add(self._key)
        return VideoError(
            f"{self.name}: given up after {self._seconds:g} s of decoding; if the file is good, "
            f"set the environment variable {DEADLINE_S} to more seconds"
        )

"""One batch after the other in a replica, none for ever."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from videorl.errors import WorkLostError


class Turn:
    """A lock around what a replica computes, which knows when that takes too long."""

    def __init__(self, work_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """Begin free.

        Args:
            work_s: How long a batch may take.
            now: Tells the time, in seconds.
        """
        self._work_s, self._now = work_s, now
        self._lock = asyncio.Lock()
        self._began: float | None = None

    async def __aenter__(self) -> None:
        await self._lock.acquire()
        self._began = self._now()

    async def __aexit__(self, *_: object) -> None:
        self._began = None
        self._lock.release()

    def check(self) -> None:
        """See that the batch of now is not stuck; the replica is to be replaced if it is.

        Raises:
            WorkLostError: It had its time.
        """
        if self._began is not None and self._now() - self._began > self._work_s:
            raise WorkLostError(
                f"a batch takes more than {self._work_s:g} s: this replica is stuck, or needs a "
                "larger --work-s"
            )

"""Work that repeats on a thread while something else runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def repeating(act: Callable[[], object], interval_s: float, name: str) -> Iterator[None]:
    """Call `act` on a thread of its own, again and again inside the block.

    Args:
        act: First called after one interval. What it raises is logged, with the traceback, and it
            is called again after the next interval: a full disk or a busy node must not end it.
        interval_s: Seconds between the end of one call and the next.
        name: Of the thread, and in the log.
    """
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(interval_s):
            try:
                act()
            except Exception:
                logger.exception("%s failed, trying again", name)

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()

"""Ctrl-C and SIGTERM: finish what is being learned, save, leave; a second leaves at once."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

logger = logging.getLogger(__name__)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether a signal asked this process to stop.

    The second signal raises KeyboardInterrupt wherever the process is. The previous handlers come
    back at the end of the block. Must be entered on the main thread.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        name = signal.Signals(number).name
        logger.warning("%s: saving, then stopping; once more stops at once", name)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield lambda: asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

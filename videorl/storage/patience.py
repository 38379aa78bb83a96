"""Waiting for a store that does not answer now."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from videorl.errors import StoreLostError

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0
_TOLD_S = 30.0


def patiently(do: Callable[[], _T], patience_s: float, what: str) -> _T:
    """Do it, and again while the store is away, as long as patience lasts.

    It begins with the first failure: what goes well may take long.

    Args:
        do: May be called any number of times.
        patience_s: 0 = it is tried once.
        what: That waits, for the log.

    Raises:
        StoreLostError: The last one, when another pause would be too long.
    """
    pause, told = _FIRST_PAUSE_S, float("-inf")
    away: float | None = None
    while True:
        try:
            return do()
        except StoreLostError as error:
            away = time.monotonic() if away is None else away
            if time.monotonic() - away + pause > patience_s:
                raise
            if time.monotonic() - told > _TOLD_S:
                told = time.monotonic()
                logger.warning("%s waits for its store: %s", what, error)
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

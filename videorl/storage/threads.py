"""Many files of a store at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_THREADS = 8

Answer = TypeVar("Answer")


def each(act: Callable[[str], Answer], names: Iterable[str]) -> list[Answer]:
    """Return what `act` says of each name, in order, some of them at a time.

    The first error is raised, and what has not begun then is not done: each would wait for a store
    that is away.
    """
    with ThreadPoolExecutor(_THREADS, "store") as threads:
        answers = [threads.submit(act, name) for name in names]
        try:
            return [answer.result() for answer in answers]
        except BaseException:
            for answer in answers:
                answer.cancel()
            raise

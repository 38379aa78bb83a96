"""Futures joined without waiting for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def once(callback: Callable[[Future[First]], None]) -> Callable[[Future[First]], None]:
    """Return `callback` so that it is released when it has been called.

    A `Future` keeps its callbacks after it is done, and with them all that they hold, such as the
    media of a group; a future that is cached would hold them for the whole run.
    """
    held = [callback]
    return lambda done: held.pop()(done)


def then(source: Future[First], step: Callable[[First], Future[Second]]) -> Future[Second]:
    """Return the result of `step(source's result)`; an error of either is the result's error."""
    result: Future[Second] = Future()

    def second_done(done: Future[Second]) -> None:
        if (error := done.exception()) is not None:
            result.set_exception(error)
        else:
            result.set_result(done.result())

    def first_done(done: Future[First]) -> None:
        try:
            # Asked for, not raised: its traceback would hold `step` as long as `source` lives.
            if (error := done.exception()) is not None:
                result.set_exception(error)
            else:
                step(done.result()).add_done_callback(once(second_done))
        except Exception as error:  # whatever it is belongs to whoever waits for the result
            result.set_exception(error)

    source.add_done_callback(once(first_done))
    return result


def mapped(source: Future[First], function: Callable[[First], Second]) -> Future[Second]:
    """Return `function(source's result)`; an error of either is the result's error."""
    return then(source, lambda value: completed(lambda: function(value)))


def recovered(source: Future[First], repair: Callable[[Exception], Future[First]]) -> Future[First]:
    """Return `source`'s result, or that of `repair(its error)`, which may raise the error again."""
    settled: Future[Future[First]] = Future()

    def source_done(done: Future[First]) -> None:
        error = done.exception()
        try:
            settled.set_result(repair(error) if isinstance(error, Exception) else done)
        except Exception as raised:  # as above
            settled.set_exception(raised)

    source.add_done_callback(once(source_done))
    return then(settled, lambda repaired: repaired)


def gathered(sources: Sequence[Future[First]]) -> Future[list[First]]:
    """Return all results in order once the last is there, or the first error in that order."""
    result: Future[list[First]] = Future()
    if not sources:
        result.set_result([])
    lock, num_missing = threading.Lock(), len(sources)

    def source_done(_: Future[First]) -> None:
        nonlocal num_missing
        with lock:
            num_missing -= 1
            is_last = num_missing == 0
        if is_last:
            try:
                result.set_result([source.result() for source in sources])
            except Exception as error:  # as above
                result.set_exception(error)

    for source in sources:
        source.add_done_callback(once(source_done))
    return result


def completed(work: Callable[[], First]) -> Future[First]:
    """Run `work` now; return its result or its error as a future that is done."""
    future: Future[First] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # as above
        future.set_exception(error)
    return future

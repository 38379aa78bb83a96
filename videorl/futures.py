"""Joining futures without waiting for them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

First = TypeVar("First")
Second = TypeVar("Second")


def once(callback: Callable[[Future[First]], None]) -> Callable[[Future[First]], None]:
    """Return `callback` for a future that is kept: it is let go of when it has been called.

    A `Future` never forgets its callbacks, nor they what they hold, e.g. a whole group's media.
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
            step(done.result()).add_done_callback(second_done)
        except Exception as error:  # whatever it is belongs to whoever waits for the result
            result.set_exception(error)

    source.add_done_callback(first_done)
    return result


def mapped(source: Future[First], function: Callable[[First], Second]) -> Future[Second]:
    """Return `function(source's result)`; an error of either is the result's error."""

    def step(value: First) -> Future[Second]:
        done: Future[Second] = Future()
        done.set_result(function(value))
        return done

    return then(source, step)


def recovered(source: Future[First], repair: Callable[[Exception], Future[First]]) -> Future[First]:
    """Return `source`'s result, or that of `repair(its error)`, which may raise the error again."""
    settled: Future[Future[First]] = Future()

    def done(one: Future[First]) -> None:
        error = one.exception()
        try:
            settled.set_result(repair(error) if isinstance(error, Exception) else one)
        except Exception as raised:  # as above
            settled.set_exception(raised)

    source.add_done_callback(done)
    return then(settled, lambda one: one)


def gathered(sources: Sequence[Future[First]]) -> Future[list[First]]:
    """Return all results in order once the last is there, or the first error in that order."""
    result: Future[list[First]] = Future()
    lock, missing = threading.Lock(), len(sources)

    def one_done(_: Future[First]) -> None:
        nonlocal missing
        with lock:
            missing -= 1
            is_last = missing == 0
        if is_last:
            try:
                result.set_result([source.result() for source in sources])
            except Exception as error:  # as above
                result.set_exception(error)

    for source in sources:
        source.add_done_callback(one_done)
    return result


def completed(work: Callable[[], First]) -> Future[First]:
    """Run `work` and return its result, or its error, as a future."""
    future: Future[First] = Future()
    try:
        future.set_result(work())
    except Exception as error:  # whatever it is belongs to whoever waits for the future
        future.set_exception(error)
    return future

"""Runs of one cluster take their places one after the other."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray.actor import ActorHandle

from actors.placement import start_actor
from videorl.errors import StoppedError

logger = logging.getLogger(__name__)

_NAME, _NAMESPACE = "turn", "videorl"
_FIRST_S, _REPORT_S = 3.0, 30.0
"""Who waits says so after `_FIRST_S`, and then every `_REPORT_S`."""
_POLL_S = 0.5


class Turn:
    """An actor that there is at most one of: it lives while a run takes its places.

    It ends with the driver that made it, so that no run waits for one that is dead.
    """


@contextmanager
def turn(should_stop: Callable[[], bool]) -> Iterator[None]:
    """Be the only run of the cluster that takes places inside the block; wait for that.

    Raises:
        StoppedError: `should_stop` said so first.
    """
    next_word = time.monotonic() + _FIRST_S
    while (mine := _taken()) is None:
        check_going(should_stop)
        if (now := time.monotonic()) >= next_word:
            next_word = now + _REPORT_S
            logger.warning("waiting for another run, which waits for places before this one")
        time.sleep(_POLL_S)
    try:
        yield
    finally:
        ray.kill(mine)


def check_going(should_stop: Callable[[], bool]) -> None:
    """Raise StoppedError if `should_stop` says so."""
    if should_stop():
        raise StoppedError("stopped while it waited for places on the cluster")


def _taken() -> ActorHandle | None:
    """Return the actor if this driver could make it."""
    options = {"name": _NAME, "namespace": _NAMESPACE, "num_cpus": 0}
    try:
        return start_actor(Turn, options)
    except ValueError:  # another has this name
        return None

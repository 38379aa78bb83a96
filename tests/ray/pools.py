"""Workers that do next to nothing, but really live and die, and pools of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError

from actors.placement import start_actor
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits
from videorl.errors import (
    CheckpointError,
)

LIMITS = Limits(
    min_workers=1, max_workers=1, max_retries=2, request_timeout_s=60.0, idle_release_s=60.0
)


def exit_once(marker: Path) -> None:
    """End this process without goodbye, the first time that anyone calls this with `marker`."""
    if not marker.exists():
        marker.touch()
        os._exit(1)


def has_died(handle: ActorHandle) -> bool:
    """Return whether an actor, killed a moment ago, answers no more."""
    try:
        ray.get(handle.ready.remote())
    except RayActorError:
        return True
    return False


class Worker:
    """Answers with its own number and notes the order of requests in a file."""

    def __init__(self, number: int) -> None:
        self._number = number

    def ready(self) -> str | None:
        """Be ready."""

    def echo(self, value: Any, seconds: float = 0.0) -> tuple[int, Any]:
        """Answer after some seconds."""
        time.sleep(seconds)
        return self._number, value

    def note(self, value: Any, file: Path) -> None:
        """Append to a file."""
        with file.open("a") as lines:
            lines.write(f"{value}\n")

    def media(self, marker: Path | None = None) -> tuple[int, bytes]:
        """Answer, with one large object beside it; die the first time if given a marker."""
        if marker is not None:
            exit_once(marker)
        return self._number, b"x" * 2**20

    def die(self, seconds: float) -> None:
        """End this process without an answer, after some seconds."""
        time.sleep(seconds)
        os._exit(1)

    def fail(self, error: Exception, marker: Path | None = None) -> int:
        """Raise, or raise only the first time if given a marker."""
        if marker is None or not marker.exists():
            if marker is not None:
                marker.touch()
            raise error
        return self._number

    def hang_first(self, marker: Path) -> int:
        """Never answer, the first time."""
        if not marker.exists():
            marker.touch()
            time.sleep(1000)
        return self._number

    def wait_for(self, file: Path) -> int:
        """Answer once there is a file."""
        while not file.exists():
            time.sleep(0.02)
        return self._number

    def process_id(self) -> int:
        """Return the process."""
        return os.getpid()


class Apart(Worker):
    """Says that it is on a node of its own."""

    def ready(self) -> str:
        """Return the node."""
        return f"node {self._number}"


class BrokenWorker:
    """Cannot start."""

    def ready(self) -> None:
        """Fail."""
        raise CheckpointError("no such checkpoint: somewhere/model")


class Loading:
    """Takes for ever to start, the first time; cannot while there is a file `gone`."""

    def __init__(self, marker: Path, gone: Path | None = None) -> None:
        self._marker, self._gone = marker, gone

    def ready(self) -> None:
        """Load."""
        if self._gone is not None and self._gone.exists():
            raise OSError("the storage is away")
        if self._gone is None and not self._marker.exists():
            self._marker.touch()
            time.sleep(1000)

    def process_id(self) -> int:
        """Return the process."""
        return os.getpid()

    def die(self) -> None:
        """End this process without an answer."""
        os._exit(1)


class HangingAsItIsMade(Worker):
    """The first one hangs before it can answer anything, as one that cannot read its modules."""

    def __init__(self, marker: Path) -> None:
        super().__init__(1)
        if not marker.exists():
            marker.touch()
            time.sleep(1000)


class Waiting:
    """Has an id, as the handle of any actor."""

    _actor_id = ray.ActorID.nil()


class Stopping(Worker):
    """The first one is stopped as it is made, or while it loads, and says before who it is."""

    def __init__(self, marker: Path, is_early: bool) -> None:
        super().__init__(1)
        self._marker = marker
        if is_early:
            self._stop()

    def ready(self) -> None:
        """Load."""
        self._stop()

    def _stop(self) -> None:
        if not self._marker.exists():
            self._marker.write_text(f"{os.getpid()}")
            os.kill(os.getpid(), signal.SIGSTOP)


Make = Callable[..., ElasticPool]


def call(method: str, *arguments: Any, num_returns: int = 1) -> Callable[[Any], list[Any]]:
    """Return a pool call of one method."""

    def invoke(worker: Any) -> list[Any]:
        refs = getattr(worker, method).options(num_returns=num_returns).remote(*arguments)
        return refs if num_returns > 1 else [refs]

    return invoke


def wait_for(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Wait until `condition` holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def pool_of(kind: Any = Worker, **changes: Any) -> ElasticPool:
    """Start a pool of workers of a kind, with other limits than `LIMITS`."""

    def worker(number: int) -> Any:
        if isinstance(kind, partial):
            return start_actor(cast(type, kind.func), {"num_cpus": 1}, *kind.args)
        arguments = (number,) if kind in (Worker, Apart) else ()
        return start_actor(kind, {"num_cpus": 1}, *arguments)

    return ElasticPool("test", worker, replace(LIMITS, **changes))

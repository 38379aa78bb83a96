"""Work behind training: begun with some weights, waited for a step later, counted, given up."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

_ASK_S = 0.2


@dataclass
class Behind:
    """Keeps the books of what is sampled beside the loop; no error of it ends the run."""

    name: str
    """Of its thread, and in the log."""
    spent: str
    """The metric of the seconds that the loop spent on it."""
    lost: str
    """The metric of how much was lost so far; absent where that is nothing."""
    is_closed: bool = field(default=False, init=False)
    """What is not there will not come: the run has ended, or is ending."""
    _thread: ThreadPoolExecutor = field(init=False)
    _pending: dict[int, Future[None]] = field(default_factory=dict[int, Future[None]], init=False)
    _spent_s: float = field(default=0.0, init=False)
    _num_lost: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Make its thread, which does one thing after the other."""
        self._thread = ThreadPoolExecutor(1, self.name)

    @property
    def steps(self) -> list[int]:
        """Steps of the weights whose work was begun, and not waited for yet."""
        return list(self._pending)

    def begin(self, step: int, work: Callable[[], None]) -> None:
        """Do work that belongs to the weights of a step on the thread; returns at once."""
        self._pending[step] = self._thread.submit(work)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count the time inside the block as what the loop spends on it."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._spent_s += time.perf_counter() - started

    def settle(self, step: int, should_stop: Callable[[], bool]) -> bool:
        """Return when all that was begun with weights before `step` is there, or lost.

        So that they are still published, and in the checkpoints, from which a run that ended
        before goes on with it. False if `should_stop` said so first.
        """
        with self.counted():
            waited = [done for number, done in self._pending.items() if number < step]
            while is_waiting := bool(wait(waited, timeout=_ASK_S).not_done):
                if should_stop():
                    break
            left = {number: done for number, done in self._pending.items() if not done.done()}
            self._pending = left
        return not is_waiting

    def lose(self, count: int) -> None:
        """Count so many things as lost."""
        self._num_lost += count

    def log(self, what: str, error: Exception) -> None:
        """Say what did not come, and why."""
        logger.warning("%s: %s: %s: %s", self.name, what, type(error).__name__, error)

    def metrics(self) -> dict[str, float]:
        """Return what the loop spent on it since this was asked, and what was lost so far."""
        found = {self.spent: self._spent_s} if self._spent_s >= 1e-3 else {}
        self._spent_s = 0.0
        lost = {self.lost: float(self._num_lost)} if self._num_lost else {}
        return {**found, **lost}

    def close(self) -> None:
        """Give up what is not there."""
        self.is_closed = True
        self._thread.shutdown(wait=False, cancel_futures=True)

    def wait_for_thread(self) -> None:
        """Return when the thread has ended, after `close`."""
        self._thread.shutdown()

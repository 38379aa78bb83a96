"""An elastic pool of workers that share nothing, driven by one dispatcher thread.

No collective spans the workers, so a worker that dies, hangs or is taken away costs only a repeat
of its own request. The thread owns all state (`dispatcher.py`). Every event (a submission, an
answer, a timeout) is a message in its inbox, after which it looks at the whole pool: expire, scale,
lend. It never waits for a worker.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial

from ray import ObjectRef
from ray.actor import ActorHandle

from actors.pool.dispatcher import Dispatcher
from actors.pool.outcomes import first_line
from actors.pool.state import Lease, Limits, PoolStats, Reply
from actors.seats.seats import Seats
from videorl.errors import PoolFailedError, WorkLostError

logger = logging.getLogger(__name__)


class ElasticPool:
    """Leases requests, oldest first, to workers that start and stop as needed.

    Args:
        name: For messages.
        create_worker: Given a number unique in this pool, starts an actor and returns at once. The
            actor needs a method `ready()`, repeatable, that answers when it can work, with the id
            of its node.
        limits: Sizes and timeouts.
        seats: Where its workers go; None = where Ray puts them, however many.

    A worker counts only after it has answered `ready()`. Workers that cannot be placed yet stay
    pending in Ray, where its autoscaler sees them as demand.
    """

    def __init__(
        self,
        name: str,
        create_worker: Callable[[int], ActorHandle],
        limits: Limits,
        seats: Seats | None = None,
    ) -> None:
        self._name = name
        seats = seats or Seats()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._dispatcher = Dispatcher(name, create_worker, limits, self._inbox.put, seats)
        seats.watched_by(partial(self._inbox.put, _wake))
        self._lock = threading.RLock()
        # Held for no longer than it takes to append: Ray's own threads submit, from callbacks, and
        # the dispatcher calls Ray (to kill a worker, say) while it holds the other lock.
        self._door = threading.Lock()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=f"pool-{name}", daemon=True)
        self._thread.start()
        self._inbox.put(_wake)

    def submit(
        self,
        call: Callable[[ActorHandle], list[ObjectRef]],
        kind: str = "",
        *,
        is_behind: bool = False,
    ) -> Future[Reply]:
        """Queue a request.

        Args:
            call: Invokes an actor method; the first of the returned references is the small answer
                that is waited for, the others are media. Called again on another worker after a
                failure, so it must not depend on the worker.
            kind: Of requests that take about equally long: one that takes far longer than others
                of its kind is given to an idle worker too. Empty = it is like no other.
            is_behind: It goes behind all requests that are not, whenever they come.

        Returns:
            A future of the first successful answer. It fails with `PoolFailedError`, with
            `WorkLostError` after too many failures, or with the `VideorlError` that was raised
            on purpose. Cancelling it withdraws the request.
        """
        lease = Lease(call, kind, is_behind)
        with self._door:
            if is_open := self._is_open:
                self._dispatcher.queue.append(lease)
        if not is_open:
            lease.finish(error=WorkLostError(f"pool {self._name} is closed"))
        self._inbox.put(_wake)
        return lease.future

    def resize(self, min_workers: int, max_workers: int) -> None:
        """Change the limits; busy workers above the maximum finish their request first.

        Raises:
            ConfigError: Not 0 <= min_workers <= max_workers, or max_workers < 1.
        """
        limits = replace(self.limits, min_workers=min_workers, max_workers=max_workers)
        with self._lock:
            self._dispatcher.limits = limits
        self._inbox.put(_wake)

    def drain(self, nodes: frozenset[str]) -> None:
        """Set which nodes will leave soon.

        Workers there end at once, and are replaced elsewhere; others get what they had, and it
        counts as no failure. What they would still make would lie on a node that is lost.
        """
        with self._lock:
            self._dispatcher.draining = nodes
        self._inbox.put(_wake)

    @property
    def limits(self) -> Limits:
        """The current sizes, as `resize` left them, and timeouts."""
        return self._dispatcher.limits

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Return whether a worker became ready within `timeout_s`; raise if the pool failed."""
        serving = self._dispatcher.settled.wait(timeout_s)
        if self._dispatcher.failure is not None:
            raise self._dispatcher.failure
        return serving

    def stats(self) -> PoolStats:
        """Return a consistent picture of this moment."""
        with self._lock:
            return self._dispatcher.stats()

    def close(self) -> None:
        """Release every worker and cancel what is queued or running."""
        self._inbox.put(self._stop)
        self._thread.join()

    def _run(self) -> None:
        pool = self._dispatcher
        while self._is_open:
            message = None  # what it holds would not be freed while we wait
            with suppress(queue.Empty):
                message = self._inbox.get(timeout=pool.seconds_to_next_deadline())
            with self._lock:
                try:
                    if message is not None:
                        message()
                    if self._is_open and pool.failure is None:
                        pool.look()
                except Exception as error:  # a dead dispatcher would leave every future hanging
                    logger.exception("pool %s: dispatcher failed", self._name)
                    pool.fail(PoolFailedError(f"pool {self._name}: {first_line(error)}"))
                if pool.failure is not None:
                    pool.end_all(pool.failure)

    def _stop(self) -> None:
        with self._door:
            self._is_open = False
        self._dispatcher.end_all(WorkLostError(f"pool {self._name} was closed"))


def _wake() -> None:
    """Do nothing: the dispatcher looks at the whole pool after any message."""

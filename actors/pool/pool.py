"""An elastic pool of workers that share nothing, driven by one dispatcher thread.

No collective spans the workers, so one that dies, hangs or is taken away costs its own request a
repeat and nobody else anything. The thread owns all state; every event (a submission, an answer, a
timeout) reaches it as one message of its inbox, after which it looks at the whole pool once:
expire, scale, dispatch. It never blocks on a worker.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from actors.pool.outcomes import Outcome, as_own_error, died, first_line, judge
from actors.pool.roster import Roster
from actors.pool.scaling import change
from actors.pool.state import Counts, Lease, Limits, PoolStats, Reply, Starts, Worker, picture
from videorl.errors import PoolFailedError, VideorlError, WorkLostError

logger = logging.getLogger(__name__)

_START_ATTEMPTS = 3
"""Starts in a row that may fail while nobody serves, before the pool gives up."""


class ElasticPool:
    """Leases requests, oldest first, to workers that start and stop as needed.

    Args:
        name: For messages.
        create_worker: Given a number unique in this pool, starts an actor and returns at once. The
            actor needs a method `ready()`, repeatable, that answers when it can work, with the id
            of its node.
        limits: Size and patience.

    A worker counts only after it has answered `ready()`. Those that cannot be placed yet stay
    pending in Ray, where its autoscaler sees them as demand.
    """

    def __init__(
        self, name: str, create_worker: Callable[[int], ActorHandle], limits: Limits
    ) -> None:
        self._name = name
        self._create_worker = create_worker
        self._limits = limits
        self._queue: deque[Lease] = deque()
        self._roster = Roster()
        self._numbers = itertools.count()
        self._counts = Counts()
        self._starts = Starts()
        self._draining: frozenset[str] = frozenset()
        self._failure: PoolFailedError | None = None
        self._served = threading.Event()
        self._lock = threading.RLock()
        # Held for no longer than it takes to append: Ray's own threads submit, from callbacks, and
        # the dispatcher calls Ray (to kill a worker, say) while it holds the other lock.
        self._door = threading.Lock()
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._is_open = True
        self._thread = threading.Thread(target=self._run, name=f"pool-{name}", daemon=True)
        self._thread.start()
        self._inbox.put(_wake)

    def submit(self, call: Callable[[ActorHandle], list[ObjectRef]]) -> Future[Reply]:
        """Queue one request.

        Args:
            call: Invokes an actor method; the first of the returned references is the small answer
                that is waited for, the others are media. Called again on another worker after a
                failure, so it must not depend on the worker.

        Returns:
            A future of the first successful answer. It fails with `PoolFailedError`, with
            `WorkLostError` after too many failures, or with the `VideorlError` that was raised
            on purpose. Cancelling it withdraws the request.
        """
        lease = Lease(call)
        with self._door:
            if is_open := self._is_open:
                self._queue.append(lease)
        if not is_open:
            lease.finish(error=WorkLostError(f"pool {self._name} is closed"))
        self._inbox.put(_wake)
        return lease.future

    def resize(self, min_workers: int, max_workers: int) -> None:
        """Change the limits; busy workers above the maximum finish their request first."""
        limits = replace(self._limits, min_workers=min_workers, max_workers=max_workers)
        with self._lock:
            self._limits = limits
        self._inbox.put(_wake)

    def drain(self, nodes: frozenset[str]) -> None:
        """Say which nodes are about to go.

        Workers there finish what they hold, get nothing more, and are replaced elsewhere at once.
        """
        with self._lock:
            self._draining = nodes
        self._inbox.put(_wake)

    @property
    def limits(self) -> Limits:
        """The sizes of now, as `resize` left them."""
        return self._limits

    def wait_until_serving(self, timeout_s: float) -> bool:
        """Return whether a worker became ready within `timeout_s`; raise if the pool failed."""
        serving = self._served.wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        return serving

    def stats(self) -> PoolStats:
        """Return a consistent picture of this moment."""
        with self._lock:
            return picture(self._roster, len(self._queue), self._counts)

    def close(self) -> None:
        """Release every worker and cancel what is queued or running."""
        self._inbox.put(self._stop)
        self._thread.join()

    def _run(self) -> None:
        while self._is_open:
            message = None  # what it holds would not be freed while we wait
            with suppress(queue.Empty):
                message = self._inbox.get(timeout=self._seconds_to_next_deadline())
            with self._lock:
                try:
                    if message is not None:
                        message()
                    if self._is_open and self._failure is None:
                        self._expire()
                        self._scale()
                        self._dispatch()
                except Exception as error:  # a dead dispatcher would leave every future hanging
                    logger.exception("pool %s: dispatcher failed", self._name)
                    self._fail(PoolFailedError(f"pool {self._name}: {first_line(error)}"))
                if self._failure is not None:
                    self._end_all(self._failure)

    def _seconds_to_next_deadline(self) -> float | None:
        now, limits = time.monotonic(), self._limits
        waits = [max(0.0, self._starts.next - now)] if self._starts.next else list[float]()
        if busy := self._roster.oldest("busy"):
            waits.append(max(0.0, busy.since + limits.request_timeout_s - now))
        if len(self._roster) > limits.min_workers:
            spare = (self._roster.oldest("starting"), self._roster.oldest("idle"))
            # At least a second: one that may go but is still in demand must not spin us.
            waits += [max(1.0, one.since + limits.idle_release_s - now) for one in spare if one]
        # A little more than due, so that the comparison on waking is not lost to rounding.
        return min(waits) + 0.001 if waits else None

    def _expire(self) -> None:
        now, patience = time.monotonic(), self._limits.request_timeout_s
        while (worker := self._roster.oldest("busy")) and now - worker.since > patience:
            self._replace(worker, TimeoutError(f"no answer within {patience:.0f} s"))

    def _scale(self) -> None:
        now = time.monotonic()
        wanted = change(self._roster, len(self._queue), self._limits, self._draining, now)
        for worker in wanted.released:
            self._release(worker)
        if self._starts.may_start(now):
            for _ in range(wanted.num_starts):
                self._start_worker()

    def _dispatch(self) -> None:
        while self._queue:
            lease = self._queue[0]
            worker = self._roster.last_used(lease.avoid)
            if worker is None:
                return
            self._queue.popleft()
            if lease.future.cancelled():
                continue
            try:
                refs = lease.call(worker.handle)
            except Exception as error:  # the request itself cannot even be sent
                lease.finish(error=WorkLostError(f"{self._name}: {first_line(error)}"))
                continue
            worker.lend(lease, refs)
            self._roster.move(worker, "busy")
            self._notify(refs[0], partial(self._on_answer, worker, lease, refs))

    def _start_worker(self) -> None:
        number = next(self._numbers)
        worker = Worker(number, self._create_worker(number))
        self._roster.add(worker)
        self._await_ready(worker)

    def _await_ready(self, worker: Worker) -> None:
        self._roster.move(worker, "starting")
        ref = worker.handle.ready.remote()
        worker.refs = [ref]
        self._notify(ref, partial(self._on_ready, worker))

    def _notify(self, ref: ObjectRef, handle: Callable[[Future[Any]], None]) -> None:
        """Have `handle` called on the dispatcher thread when `ref` is there or has failed."""
        ref.future().add_done_callback(lambda done: self._inbox.put(partial(handle, done)))

    def _on_ready(self, worker: Worker, done: Future[Any]) -> None:
        if worker not in self._roster:
            return
        if (error := done.exception()) is None:
            self._roster.move(worker, "idle")
            worker.has_served, worker.node = True, done.result()
            self._starts.succeeded()
            self._served.set()
            return
        self._release(worker)
        self._counts.replaced += 1
        logger.warning("%s %d did not start: %s", self._name, worker.number, first_line(error))
        if not worker.has_served:
            self._on_failed_start(error)

    def _on_failed_start(self, error: BaseException) -> None:
        self._starts.failed()
        is_serving = any(worker.has_served for worker in self._roster)
        if self._starts.num_failed >= _START_ATTEMPTS and not is_serving:
            message = (
                f"pool {self._name}: {self._starts.num_failed} workers in a row could not start; "
                f"the last said: {first_line(error)}"
            )
            failure = PoolFailedError(message)
            failure.__cause__ = error
            self._fail(failure)

    def _on_answer(
        self, worker: Worker, lease: Lease, refs: list[ObjectRef], done: Future[Any]
    ) -> None:
        if worker.lease is not lease:
            return  # the late answer of a worker that was given up; its repeat is on the way
        error = done.exception()
        outcome = judge(error) if error is not None else None
        if error is not None and outcome is Outcome.REPLACE:
            self._replace(worker, error)
            return
        self._take_back(worker)
        if error is None:
            self._counts.completed += 1
            lease.finish(Reply(done.result(), tuple(refs[1:])))
        elif outcome is Outcome.GIVE_UP:
            lease.finish(error=as_own_error(error))
        else:
            self._repeat(lease, worker, error)

    def _replace(self, worker: Worker, error: BaseException) -> None:
        lease = worker.lease
        assert lease is not None
        self._take_back(worker)
        self._release(worker)
        self._counts.replaced += 1
        self._repeat(lease, worker, error)
        if died(error):
            # Perhaps its whole node died: whoever idles must answer again before it counts, or
            # one unlucky request would use up its retries on workers that are dead already.
            for other in list(self._roster.having("idle")):
                self._await_ready(other)

    def _repeat(self, lease: Lease, worker: Worker, error: BaseException) -> None:
        lease.attempts += 1
        lease.avoid = worker.number
        logger.warning("%s %d lost a request: %s", self._name, worker.number, first_line(error))
        if lease.attempts > self._limits.max_retries:
            lost = WorkLostError(
                f"{self._name}: given up after {lease.attempts} attempts; "
                f"the last error was {first_line(error)}"
            )
            lost.__cause__ = error
            lease.finish(error=lost)
        else:
            self._counts.retried += 1
            self._queue.appendleft(lease)

    def _take_back(self, worker: Worker) -> None:
        worker.give_back()
        self._roster.move(worker, "idle")

    def _release(self, worker: Worker) -> None:
        self._roster.move(worker, "gone")
        self._counts.past_s.update(worker.seconds)
        ray.kill(worker.handle, no_restart=True)

    def _fail(self, failure: PoolFailedError) -> None:
        self._failure = failure
        self._served.set()

    def _end_all(self, error: VideorlError) -> None:
        for worker in list(self._roster):
            if lease := worker.lease:
                self._take_back(worker)
                lease.finish(error=error)
            self._release(worker)
        while self._queue:
            self._queue.popleft().finish(error=error)

    def _stop(self) -> None:
        with self._door:
            self._is_open = False
        self._end_all(WorkLostError(f"pool {self._name} was closed"))


def _wake() -> None:
    """Do nothing: the dispatcher looks at the whole pool after any message."""

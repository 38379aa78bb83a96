"""The requests and workers of an elastic pool, and what is done when something happens to them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
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


class Dispatcher:
    """Starts workers, leases requests to them, and repeats what they lose; never waits for them.

    Only the pool's thread calls its methods; other threads may append to `queue`.

    Args:
        name: For messages.
        create_worker: Starts an actor, given a number that is unique in this pool.
        limits: Sizes and timeouts.
        post: Has a function called on the pool's thread; safe to call on any thread.
    """

    def __init__(
        self,
        name: str,
        create_worker: Callable[[int], ActorHandle],
        limits: Limits,
        post: Callable[[Callable[[], None]], None],
    ) -> None:
        self.limits = limits
        self.draining: frozenset[str] = frozenset()
        """Ids of nodes that will leave soon."""
        self.queue: deque[Lease] = deque()
        self.roster = Roster()
        self.failure: PoolFailedError | None = None
        self.settled = threading.Event()
        """Set once a worker was ready, or the pool has failed."""
        self._name = name
        self._create_worker = create_worker
        self._post = post
        self._numbers = itertools.count()
        self._counts = Counts()
        self._starts = Starts()

    def look(self) -> None:
        """Replace workers that took too long, start and release workers, lend requests."""
        self._expire()
        self._scale()
        self._lend()

    def seconds_to_next_deadline(self) -> float | None:
        """Return after how long to look again if nothing happens; None = not at all."""
        now, limits = time.monotonic(), self.limits
        waits = [max(0.0, self._starts.next - now)] if self._starts.next else list[float]()
        if busy := self.roster.oldest("busy"):
            waits.append(max(0.0, busy.since + limits.request_timeout_s - now))
        if len(self.roster) > limits.min_workers:
            oldest = (self.roster.oldest("starting"), self.roster.oldest("idle"))
            spare = [worker for worker in oldest if worker]
            # At least a second: a worker that may go but is still in demand must not spin us.
            waits += [max(1.0, worker.since + limits.idle_release_s - now) for worker in spare]
        # A little more than due, so that the comparison on waking is not lost to rounding.
        return min(waits) + 0.001 if waits else None

    def stats(self) -> PoolStats:
        """Return the state of the pool at this moment."""
        return picture(self.roster, len(self.queue), self._counts)

    def fail(self, failure: PoolFailedError) -> None:
        """Give up for good; `end_all` tells those who wait."""
        self.failure = failure
        self.settled.set()

    def end_all(self, error: VideorlError) -> None:
        """Release every worker; all requests, queued or running, fail with `error`."""
        for worker in list(self.roster):
            if lease := worker.lease:
                self._take_back(worker)
                lease.finish(error=error)
            self._release(worker)
        while self.queue:
            self.queue.popleft().finish(error=error)

    def _expire(self) -> None:
        now, patience = time.monotonic(), self.limits.request_timeout_s
        while (worker := self.roster.oldest("busy")) and now - worker.since > patience:
            self._replace(worker, TimeoutError(f"no answer within {patience:.0f} s"))

    def _scale(self) -> None:
        now = time.monotonic()
        wanted = change(self.roster, len(self.queue), self.limits, self.draining, now)
        for worker in wanted.released:
            self._release(worker)
        if self._starts.may_start(now):
            for _ in range(wanted.num_starts):
                self._start_worker()

    def _lend(self) -> None:
        while self.queue:
            lease = self.queue[0]
            worker = self.roster.last_used(lease.avoid)
            if worker is None:
                return
            self.queue.popleft()
            if lease.future.cancelled():
                continue
            try:
                refs = lease.call(worker.handle)
            except Exception as error:  # the request itself cannot even be sent
                lease.finish(error=WorkLostError(f"{self._name}: {first_line(error)}"))
                continue
            worker.lend(lease, refs)
            self.roster.move(worker, "busy")
            self._notify(refs[0], partial(self._on_answer, worker, lease, refs))

    def _start_worker(self) -> None:
        number = next(self._numbers)
        worker = Worker(number, self._create_worker(number))
        self.roster.add(worker)
        self._await_ready(worker)

    def _await_ready(self, worker: Worker) -> None:
        self.roster.move(worker, "starting")
        ref = worker.handle.ready.remote()
        worker.refs = [ref]
        self._notify(ref, partial(self._on_ready, worker))

    def _notify(self, ref: ObjectRef, handle: Callable[[Future[Any]], None]) -> None:
        """Have `handle` called on the pool's thread when `ref` is there or has failed."""
        ref.future().add_done_callback(lambda done: self._post(partial(handle, done)))

    def _on_ready(self, worker: Worker, done: Future[Any]) -> None:
        if worker not in self.roster:
            return
        if (error := done.exception()) is None:
            self.roster.move(worker, "idle")
            worker.has_served, worker.node = True, done.result()
            self._starts.succeeded()
            self.settled.set()
            return
        self._release(worker)
        self._counts.replaced += 1
        logger.warning("%s %d did not start: %s", self._name, worker.number, first_line(error))
        if not worker.has_served:
            self._on_failed_start(error)

    def _on_failed_start(self, error: BaseException) -> None:
        self._starts.failed()
        is_serving = any(worker.has_served for worker in self.roster)
        if self._starts.num_failed >= _START_ATTEMPTS and not is_serving:
            message = (
                f"pool {self._name}: {self._starts.num_failed} workers in a row could not start; "
                f"the last said: {first_line(error)}"
            )
            failure = PoolFailedError(message)
            failure.__cause__ = error
            self.fail(failure)

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
            # Perhaps its whole node died. Idle workers must answer again before they count, or a
            # request would use up its retries on workers that are dead already.
            for other in list(self.roster.having("idle")):
                self._await_ready(other)

    def _repeat(self, lease: Lease, worker: Worker, error: BaseException) -> None:
        lease.attempts += 1
        lease.avoid = worker.number
        logger.warning("%s %d lost a request: %s", self._name, worker.number, first_line(error))
        if lease.attempts > self.limits.max_retries:
            lost = WorkLostError(
                f"{self._name}: given up after {lease.attempts} attempts; "
                f"the last error was {first_line(error)}"
            )
            lost.__cause__ = error
            lease.finish(error=lost)
        else:
            self._counts.retried += 1
            self.queue.appendleft(lease)

    def _take_back(self, worker: Worker) -> None:
        worker.give_back()
        self.roster.move(worker, "idle")

    def _release(self, worker: Worker) -> None:
        self.roster.move(worker, "gone")
        self._counts.past_s.update(worker.seconds)
        ray.kill(worker.handle, no_restart=True)

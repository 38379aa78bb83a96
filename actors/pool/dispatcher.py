"""The requests and workers of an elastic pool, and what is done when something happens to them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from ray import ObjectRef
from ray.actor import ActorHandle

from actors.pool.deadlines import seconds_to_next
from actors.pool.ending import end
from actors.pool.lending import next_straggler, num_ahead, unbegun, with_room
from actors.pool.outcomes import (
    Outcome,
    as_own_error,
    died,
    first_line,
    given_up,
    hopeless,
    judge,
    was_preempted,
)
from actors.pool.placing import ask_s, placed_in_silence
from actors.pool.rhythm import Rhythm
from actors.pool.roster import Roster
from actors.pool.scaling import Around, change
from actors.pool.state import (
    Counts,
    Durations,
    Lease,
    Limits,
    PoolStats,
    Reply,
    Starts,
    Worker,
    picture,
)
from actors.pool.waiting import Waiting
from actors.seats.seats import Seats
from videorl.errors import PoolFailedError, VideorlError, WorkLostError

logger = logging.getLogger(__name__)

_START_ATTEMPTS = 3
"""Starts in a row that may fail before any worker has served, before the pool gives up."""


class Dispatcher:
    """Starts workers, leases requests to them, and repeats what they lose; never waits for them.

    Only the pool's thread calls its methods; other threads may append to `queue`.

    Args:
        name: For messages.
        create_worker: Starts an actor, given a number that is unique in this pool.
        limits: Sizes and timeouts.
        post: Has a function called on the pool's thread; safe to call on any thread.
        seats: Where workers go, and how many more there is room for.
    """

    def __init__(
        self,
        name: str,
        create_worker: Callable[[int], ActorHandle],
        limits: Limits,
        post: Callable[[Callable[[], None]], None],
        seats: Seats,
    ) -> None:
        self.limits = limits
        self.draining: frozenset[str] = frozenset()
        """Ids of nodes that will leave soon."""
        self.queue = Waiting()
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
        self._durations = Durations()
        self._rhythm = Rhythm()
        self._asked, self._seats = 0.0, seats

    def look(self) -> None:
        """Replace workers that took too long, start and release workers, lend requests."""
        self._expire()
        self._scale()
        self._lend()

    def seconds_to_next_deadline(self) -> float | None:
        """Return after how long to look again if nothing happens; None = not at all."""
        now_is = self.roster, self._starts, self._durations, self.limits, self._asked
        return seconds_to_next(*now_is)

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
            for lease in list(worker.leases):
                self._take_back(worker, lease)
                lease.finish(error=error)
            self._release(worker)
        while self.queue:
            self.queue.take(lease := self.queue.head)
            lease.finish(error=error)

    def _expire(self) -> None:
        now, patience = time.monotonic(), self.limits.request_timeout_s
        while (worker := self.roster.oldest("busy")) and now - worker.since > patience:
            self._replace(worker, TimeoutError(f"no answer within {patience:.0f} s"))
        patience = self.limits.start_timeout_s
        while (worker := self.roster.oldest("starting")) and now - worker.since > patience:
            self._could_not_start(worker, TimeoutError(f"it was not ready within {patience:.0f} s"))
        if now >= self._asked + ask_s(self.limits):
            self._asked = now
            for worker in placed_in_silence(self.roster, self.limits, now):
                self._begin(worker)

    def _scale(self) -> None:
        now = time.monotonic()
        queued = len(self.queue) + (num_ahead(self.roster) if self.limits.ahead else 0)
        self._rhythm.note(queued + self.roster.count("busy"), now)
        needed = self._rhythm.needed(self.limits.idle_release_s, now)
        around = Around(self.draining, needed, self._seats.is_pressed, self._seats.num_kept_free())
        wanted = change(self.roster, queued, self.limits, now, around)
        for worker in wanted.released:
            self._leave(worker)
        self._seats.keep(self.limits.min_workers)
        num_starts = int(min(wanted.num_starts, self._seats.num_free()))
        # Asked each time, as the one before may have failed at once.
        while self._starts.may_start(now) and num_starts > 0:
            self._start_worker()
            num_starts -= 1

    def _lend(self) -> None:
        while self.queue:
            lease = self.queue.head
            worker = self.roster.last_used(lease.avoid) or with_room(
                self.roster, lease, self.limits.ahead
            )
            if worker is None:
                return
            self.queue.take(lease)
            if not lease.future.cancelled():
                self._give(lease, worker)
        # The worker that was lent a request ahead may be slow, or leave.
        while (lease := unbegun(self.roster)) and (worker := self.roster.last_used(lease.avoid)):
            lease.is_shared = True
            self._give(lease, worker)
        self._help_stragglers()

    def _help_stragglers(self) -> None:
        """Give what takes far longer than others to an idle worker too.

        A request gives the same answer everywhere, and whoever waits for a round waits for its
        slowest.
        """
        while (worker := self.roster.last_used(None)) is not None:
            first = next_straggler(self.roster, self._durations)
            if first is None or first[0] > time.monotonic():
                return
            slow = first[1]
            lease = next(iter(slow.leases))
            lease.is_shared = True
            self._counts.repeated_for_speed += 1
            logger.warning(
                "%s %d has worked for %.0f s, usual are %.0f: its request goes to another too",
                self._name,
                slow.number,
                time.monotonic() - slow.since,
                self._durations.usual(lease.kind),
            )
            self._give(lease, worker)

    def _give(self, lease: Lease, worker: Worker) -> None:
        try:
            refs = lease.call(worker.handle)
        except Exception as error:  # the request itself cannot even be sent
            if not lease.is_shared:  # else another worker has it
                lease.finish(error=WorkLostError(f"{self._name}: {first_line(error)}"))
            return
        worker.leases[lease] = refs
        if worker.state == "idle":
            self.roster.move(worker, "busy")
        self._notify(refs[0], partial(self._on_answer, worker, lease, refs))

    def _start_worker(self) -> None:
        number = next(self._numbers)
        is_seated = self._seats.take(number)
        try:
            handle = self._create_worker(number)
        except Exception as error:  # Ray's head is away, or the kept place is gone
            self._seats.give_back(number)
            self._note_failed_start(number, error)
            return
        worker = Worker(number, handle, is_seated=is_seated)
        self.roster.add(worker)
        # Ray's own method, which any actor answers as soon as it lives.
        worker.pending = worker.handle.__ray_ready__.remote()
        self._notify(worker.pending, partial(self._on_placed, worker))

    def _on_placed(self, worker: Worker, done: Future[Any]) -> None:
        if worker not in self.roster or worker.state != "pending":
            return
        if (error := done.exception()) is None:
            self._begin(worker)
        else:
            self._could_not_start(worker, error)

    def _begin(self, worker: Worker) -> None:
        self._seats.has_come(worker.number)
        self._await_ready(worker)

    def _await_ready(self, worker: Worker) -> None:
        self.roster.move(worker, "starting")
        ref = worker.handle.ready.remote()
        worker.pending = ref
        self._notify(ref, partial(self._on_ready, worker))

    def _notify(self, ref: ObjectRef, handle: Callable[[Future[Any]], None]) -> None:
        """Have `handle` called on the pool's thread when `ref` is there or has failed."""
        ref.future().add_done_callback(lambda done: self._post(partial(handle, done)))

    def _on_ready(self, worker: Worker, done: Future[Any]) -> None:
        if worker not in self.roster:
            return
        worker.pending = None
        if (error := done.exception()) is None:
            self.roster.move(worker, "idle")
            worker.has_served, worker.node = True, done.result()
            self._starts.succeeded()
            self.settled.set()
            return
        self._could_not_start(worker, error)

    def _could_not_start(self, worker: Worker, error: BaseException) -> None:
        self._release(worker, hangs=isinstance(error, TimeoutError))
        self._counts.replaced_for(error)
        if worker.has_served:
            logger.warning("%s %d is lost: %s", self._name, worker.number, first_line(error))
        else:
            self._note_failed_start(worker.number, error)

    def _note_failed_start(self, number: int, error: BaseException) -> None:
        logger.warning("%s %d did not start: %s", self._name, number, first_line(error))
        is_serving = any(worker.has_served for worker in self.roster)
        self._starts.failed(is_serving=is_serving)
        if not is_serving and self._starts.are_hopeless(_START_ATTEMPTS, self.limits.patience_s):
            tried, has_served = self._starts.num_failed, self._starts.has_succeeded
            self.fail(hopeless(self._name, tried, error, has_served=has_served))

    def _on_answer(
        self, worker: Worker, lease: Lease, refs: list[ObjectRef], done: Future[Any]
    ) -> None:
        if lease not in worker.leases:
            return  # the late answer of a worker that was given up; its repeat is on the way
        error = done.exception()
        outcome = judge(error) if error is not None else None
        if error is not None and outcome is Outcome.REPLACE:
            self._replace(worker, error)
            return
        took_s = time.monotonic() - worker.since
        self._take_back(worker, lease)
        if lease.is_shared and lease.future.done():
            return
        if error is None:
            self._counts.completed += 1
            self._durations.add(lease.kind, took_s)
            lease.finish(Reply(done.result(), tuple(refs[1:]), worker.handle))
        elif outcome is Outcome.GIVE_UP:
            lease.finish(error=as_own_error(error))
        else:
            self._repeat(lease, worker, error)

    def _replace(self, worker: Worker, error: BaseException) -> None:
        leases = list(worker.leases)
        for lease in leases:
            self._take_back(worker, lease)
        self._release(worker, hangs=isinstance(error, TimeoutError))
        self._counts.replaced_for(error)
        # A node that its cloud took away says nothing of what was done there.
        is_at_fault = len(leases) == 1 and not was_preempted(error)
        for lease in reversed(leases):
            self._repeat(lease, worker, error, is_at_fault=is_at_fault)
        if died(error):
            # Perhaps its whole node died. Idle workers must answer again before they count, or a
            # request would use up its retries on workers that are dead already.
            for other in list(self.roster.having("idle")):
                self._await_ready(other)

    def _repeat(
        self, lease: Lease, worker: Worker, error: BaseException, *, is_at_fault: bool = True
    ) -> None:
        """Queue a request again, at the front; only one that may be to blame loses an attempt."""
        others = self.roster.having("busy")
        if lease.is_shared and (lease.future.done() or any(lease in one.leases for one in others)):
            return
        lease.attempts += is_at_fault
        lease.avoid, lease.is_alone = worker.number, True
        logger.warning("%s %d lost a request: %s", self._name, worker.number, first_line(error))
        if lease.attempts > self.limits.max_retries:
            lease.finish(error=given_up(self._name, lease.attempts, error))
        else:
            self._counts.retried += 1
            lease.is_shared = False
            self.queue.give_back(lease)

    def _take_back(self, worker: Worker, lease: Lease) -> None:
        was_first = lease is next(iter(worker.leases))
        del worker.leases[lease]
        if not worker.leases:
            self.roster.move(worker, "idle")
        elif was_first:
            # The time of the next begins now; that of a first that hangs goes on.
            self.roster.move(worker, "busy")

    def _leave(self, worker: Worker) -> None:
        """Release a worker; what it had, as its node leaves, others begin at once."""
        for lease in reversed(list(worker.leases)):
            self._take_back(worker, lease)
            others = self.roster.having("busy")
            if not lease.future.done() and not any(lease in one.leases for one in others):
                self._counts.retried += 1
                lease.is_shared = False
                self.queue.give_back(lease)
        self._release(worker)

    def _release(self, worker: Worker, *, hangs: bool = False) -> None:
        self.roster.move(worker, "gone")
        self._seats.give_back(worker.number)
        self._counts.past_s.update(worker.seconds)
        end(worker.handle, hangs=hangs)

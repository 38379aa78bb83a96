"""What an elastic pool knows of its workers and requests."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal, TypeAlias

from ray import ObjectRef
from ray.actor import ActorHandle

from actors.pool.outcomes import is_fenced
from videorl.errors import ConfigError

_REMEMBERED, _ENOUGH = 101, 5
"""Requests whose durations are remembered; so many say what is usual."""
_SLOW, _SHORTEST_S = 3.0, 1.0
"""A straggler takes so many times what is usual, and at least so many seconds."""
LONGEST_PAUSE_S = 60.0
"""Upper limit of the doubling pause after failed starts."""

State: TypeAlias = Literal["pending", "starting", "idle", "busy", "gone"]
"""`pending` = not placed on a node yet; `starting` = placed, and loads its model."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and timeouts of a pool.

    Raises:
        ConfigError: Not 0 <= min_workers <= max_workers, or max_workers < 1.
    """

    min_workers: int
    """So many workers are kept even when idle."""
    max_workers: int
    """At most so many are started while requests queue."""
    max_retries: int
    """Times that a request is repeated after its first failure."""
    request_timeout_s: float
    """A worker that holds one request for longer is replaced."""
    idle_release_s: float
    """A worker above the minimum that idles for longer is released."""
    ahead: int = 0
    """Requests that a busy worker is lent beside its first, where no worker is idle."""
    start_timeout_s: float = 1800.0
    """A worker that was placed and is not ready for longer is replaced."""
    patience_s: float = 1200.0
    """A pool that has served and can start no worker any more gives up after so long."""

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.min_workers < 0 or self.max_workers < max(1, self.min_workers):
            raise ConfigError(
                "a pool needs 0 <= min_workers <= max_workers and max_workers >= 1, got "
                f"min_workers {self.min_workers} and max_workers {self.max_workers}"
            )


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request."""

    value: Any
    """What the worker returned: small, and on the driver already."""
    media: tuple[ObjectRef, ...]
    """The further results: objects owned by the driver, wherever they lie."""
    worker: ActorHandle | None = None
    """Who answered; it may be gone by now."""


@dataclass(eq=False)
class Lease:
    """A request, queued or lent to a worker."""

    call: Callable[[ActorHandle], list[ObjectRef]]
    kind: str = ""
    """Requests of one kind take about equally long; empty = it is like no other."""
    is_behind: bool = False
    """It gets a worker only where no other request waits for one."""
    future: Future[Reply] = field(default_factory=Future)
    attempts: int = 0
    """How often it has failed."""
    avoid: int | None = None
    """The worker that failed it last."""
    is_alone: bool = False
    """It failed before: it shares a worker with no other request, so that it is clear whose fault
    the next failure is."""
    is_shared: bool = False
    """It was lent to a second worker, which was idle while the first was slow or had others before
    it: the first answer counts."""

    def finish(self, reply: Reply | None = None, error: Exception | None = None) -> None:
        """Complete the future, unless its owner has cancelled it meanwhile."""
        with suppress(InvalidStateError):
            if error is not None:
                self.future.set_exception(error)
            else:
                assert reply is not None
                self.future.set_result(reply)


@dataclass(eq=False)
class Worker:
    """One actor of the pool."""

    number: int
    handle: ActorHandle
    state: State = "pending"
    since: float = field(default_factory=time.monotonic)
    """Monotonic time at which it entered this state."""
    leases: dict[Lease, list[ObjectRef]] = field(default_factory=dict[Lease, list[ObjectRef]])
    """What it works on, in the order in which it was lent. Their results, not there yet, are held
    so that Ray does not free them."""
    pending: ObjectRef | None = None
    """The answer that it is placed, then that it is ready, held for the same reason."""
    is_seated: bool = False
    """Whether it has a place that is kept for this pool."""
    has_served: bool = False
    """Whether it was ever ready."""
    node: str | None = None
    """Id of its node, as it says when it is ready."""
    seconds: dict[State, float] = field(default_factory=dict)
    """Time spent in the states that it has left."""

    def become(self, state: State) -> None:
        """Enter a state, and add up the time spent in the state before."""
        now = time.monotonic()
        self.seconds[self.state] = self.seconds.get(self.state, 0.0) + now - self.since
        self.state, self.since = state, now

    def may_take(self, lease: Lease, ahead: int) -> bool:
        """Tell whether it may be lent a request beside those that it has."""
        shared = [lease, *self.leases]
        return len(shared) <= 1 + ahead and not any(other.is_alone for other in shared)

    def seconds_in(self, state: State) -> float:
        """Return the time spent in `state` until now."""
        running = time.monotonic() - self.since if self.state == state else 0.0
        return self.seconds.get(state, 0.0) + running


@dataclass
class Starts:
    """When the next worker may start after some could not, and when to stop trying."""

    num_failed: int = 0
    """Starts that failed since the last that succeeded."""
    has_succeeded: bool = False
    """Whether any ever did."""
    first_failure: float = 0.0
    """Monotonic time of the first of those that failed while no worker served."""
    next: float = 0.0
    """Monotonic time before which nothing is started; 0 = no pause."""

    def failed(self, *, is_serving: bool) -> None:
        """Count a failure, and pause for twice as long as after the last."""
        self.num_failed += 1
        if self.num_failed == 1 or is_serving:
            self.first_failure = time.monotonic()
        self.next = time.monotonic() + min(LONGEST_PAUSE_S, 0.25 * 2**self.num_failed)

    def succeeded(self) -> None:
        """Forget failures."""
        self.num_failed, self.next, self.has_succeeded = 0, 0.0, True

    def are_hopeless(self, attempts: int, patience_s: float) -> bool:
        """Tell whether to give up: soon if no start ever succeeded, else after a time.

        What cannot start at first is a mistake; later, something is lost that may come back.
        """
        if self.has_succeeded:
            return bool(self.num_failed) and time.monotonic() - self.first_failure > patience_s
        return self.num_failed >= attempts

    def may_start(self, now: float) -> bool:
        """Tell whether the pause is over."""
        if now < self.next:
            return False
        self.next = 0.0
        return True


@dataclass
class Durations:
    """How long the last requests of each kind took."""

    by_kind: dict[str, deque[float]] = field(default_factory=dict[str, deque[float]])

    def add(self, kind: str, seconds: float) -> None:
        """Remember a request."""
        self.by_kind.setdefault(kind, deque(maxlen=_REMEMBERED)).append(seconds)

    def usual(self, kind: str) -> float:
        """Return the median of a kind; infinite if there were too few, or it is like no other."""
        last = self.by_kind.get(kind, ())
        return median(last) if kind and len(last) >= _ENOUGH else math.inf

    def long(self, kind: str) -> float:
        """Return from when on a request is a straggler, in seconds."""
        return max(_SHORTEST_S, _SLOW * self.usual(kind))


@dataclass
class Counts:
    """Totals since the pool was made, and the seconds of workers that are gone."""

    completed: int = 0
    retried: int = 0
    replaced: int = 0
    fenced: int = 0
    repeated_for_speed: int = 0
    past_s: Counter[State] = field(default_factory=Counter[State])

    def replaced_for(self, error: BaseException) -> None:
        """Count a worker that was given up, and whether that was because it cannot be trusted."""
        self.replaced += 1
        self.fenced += is_fenced(error)


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment; the counts of requests and replacements are totals since it began."""

    workers: int
    """Ready workers, idle or busy."""
    starting: int
    """Workers that are not ready yet,"""
    pending: int
    """and those of them that no node has room for so far."""
    busy: int
    queued: int
    completed: int
    retried: int
    replaced: int
    fenced: int
    """Those of the replaced that lived, but whose weights or samples were wrong."""
    repeated_for_speed: int
    """Requests that were given to a second worker, as the first took long."""
    busy_s: float
    """Worker-seconds spent on requests, including workers that are gone."""
    ready_s: float
    """Worker-seconds idle or busy."""

    @property
    def utilisation(self) -> float:
        """Share of ready worker time spent on requests, in [0, 1]; 0 if none was ready."""
        return self.busy_s / self.ready_s if self.ready_s > 0 else 0.0


def picture(workers: Iterable[Worker], queued: int, counts: Counts) -> PoolStats:
    """Count workers by state and add up their time."""
    workers = list(workers)
    states = Counter(worker.state for worker in workers)
    busy_s, idle_s = (
        counts.past_s[state] + sum(worker.seconds_in(state) for worker in workers)
        for state in ("busy", "idle")
    )
    return PoolStats(
        workers=states["idle"] + states["busy"],
        starting=states["starting"] + states["pending"],
        pending=states["pending"],
        busy=states["busy"],
        queued=queued,
        completed=counts.completed,
        retried=counts.retried,
        replaced=counts.replaced,
        fenced=counts.fenced,
        repeated_for_speed=counts.repeated_for_speed,
        busy_s=busy_s,
        ready_s=busy_s + idle_s,
    )

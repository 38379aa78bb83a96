"""What an elastic pool knows of its workers and requests."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from ray import ObjectRef
from ray.actor import ActorHandle

from videorl.errors import ConfigError

LONGEST_PAUSE_S = 60.0
"""Upper limit of the doubling pause after failed starts."""

State: TypeAlias = Literal["starting", "idle", "busy", "gone"]


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


@dataclass(eq=False)
class Lease:
    """A request, queued or lent to a worker."""

    call: Callable[[ActorHandle], list[ObjectRef]]
    future: Future[Reply] = field(default_factory=Future)
    attempts: int = 0
    """How often it has failed."""
    avoid: int | None = None
    """The worker that failed it last."""

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
    state: State = "starting"
    since: float = field(default_factory=time.monotonic)
    """Monotonic time at which it entered this state."""
    lease: Lease | None = None
    refs: list[ObjectRef] = field(default_factory=list)
    """Results that are not there yet, held so that Ray does not free them."""
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

    def lend(self, lease: Lease, refs: list[ObjectRef]) -> None:
        """Give it a request to work on."""
        self.lease, self.refs = lease, refs

    def give_back(self) -> None:
        """Take the request from it."""
        self.lease, self.refs = None, []

    def seconds_in(self, state: State) -> float:
        """Return the time spent in `state` until now."""
        running = time.monotonic() - self.since if self.state == state else 0.0
        return self.seconds.get(state, 0.0) + running


@dataclass
class Starts:
    """When the next worker may start after some could not, and when to stop trying."""

    num_failed: int = 0
    """Starts that failed since the last that succeeded."""
    next: float = 0.0
    """Monotonic time before which nothing is started; 0 = no pause."""

    def failed(self) -> None:
        """Count a failure, and pause for twice as long as after the last."""
        self.num_failed += 1
        self.next = time.monotonic() + min(LONGEST_PAUSE_S, 0.25 * 2**self.num_failed)

    def succeeded(self) -> None:
        """Forget failures."""
        self.num_failed, self.next = 0, 0.0

    def may_start(self, now: float) -> bool:
        """Tell whether the pause is over."""
        if now < self.next:
            return False
        self.next = 0.0
        return True


@dataclass
class Counts:
    """Totals since the pool was made, and the seconds of workers that are gone."""

    completed: int = 0
    retried: int = 0
    replaced: int = 0
    past_s: Counter[State] = field(default_factory=Counter[State])


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool at one moment; the counts of requests and replacements are totals since it began."""

    workers: int
    """Ready workers, idle or busy."""
    starting: int
    busy: int
    queued: int
    completed: int
    retried: int
    replaced: int
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
        starting=states["starting"],
        busy=states["busy"],
        queued=queued,
        completed=counts.completed,
        retried=counts.retried,
        replaced=counts.replaced,
        busy_s=busy_s,
        ready_s=busy_s + idle_s,
    )

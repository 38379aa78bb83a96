"""How many workers an elastic pool starts and which it releases: a pure function."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from actors.pool.roster import Roster
from actors.pool.state import Limits, Worker


@dataclass(frozen=True, slots=True)
class Change:
    """Workers to start and to release now."""

    num_starts: int
    released: tuple[Worker, ...]


@dataclass(frozen=True, slots=True)
class Around:
    """What happens around a pool."""

    draining: Collection[str] = ()
    """Ids of nodes that will leave soon."""
    needed: int = 0
    """Workers that the next round will need."""
    is_pressed: bool = False
    """Places are wanting that are needed more than idle workers."""
    num_seats: int = 0
    """Kept places that nobody sits on."""


QUIET = Around()


def change(
    roster: Roster, num_queued: int, limits: Limits, now: float, around: Around = QUIET
) -> Change:
    """Return what brings a pool to the size that its queue asks for.

    A busy worker is released only with its node: its request is then repeated elsewhere. One that
    loads its model is released only above the maximum. Workers above the maximum are released as
    soon as they are idle, workers above what the queue needs, now or in the next round, once they
    have idled, or waited for a place, for `limits.idle_release_s`. Those without a kept place go
    first; where places are wanting that are needed more, as soon as they have no request, also
    while others are queued.

    Args:
        roster: All workers of the pool.
        num_queued: Requests without a worker.
        limits: Sizes of the pool, and how long a worker may idle.
        now: Monotonic time in seconds.
        around: What happens around the pool.
    """
    draining = around.draining
    released = [worker for worker in roster if worker.node in draining] if draining else []
    demand = num_queued + roster.count("busy")
    wanted = min(limits.max_workers, max(limits.min_workers, demand))
    kept = min(limits.max_workers, max(wanted, around.needed))
    size = len(roster) - len(released)
    # First workers that no node has room for, then those that load, then the longest idle.
    for state in ("pending", "starting", "idle"):
        for worker in sorted(roster.having(state), key=lambda worker: worker.is_seated):
            if worker.node in draining:
                continue
            least = limits.max_workers
            if state != "starting" and around.is_pressed and not worker.is_seated:
                # Who would find a kept place free moves there, as its own place is wanted.
                least = max(0, limits.min_workers - around.num_seats)
            elif state != "starting" and now - worker.since > limits.idle_release_s:
                least = wanted if state == "pending" else kept
            if size <= least:
                continue
            released.append(worker)
            size -= 1
    return Change(max(0, wanted - size), tuple(released))

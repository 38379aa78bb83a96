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


def change(
    roster: Roster,
    num_queued: int,
    limits: Limits,
    draining: Collection[str],
    now: float,
) -> Change:
    """Return what brings a pool to the size that its queue asks for.

    A busy worker is never released, one that loads its model only above the maximum. Workers on
    draining nodes count as gone already, so that their replacements start before the node ends.
    Workers above the maximum are released as soon as they are idle, workers above the demand once
    they have idled, or waited for a place, for `limits.idle_release_s`.

    Args:
        roster: All workers of the pool.
        num_queued: Requests without a worker.
        limits: Sizes of the pool, and how long a worker may idle.
        draining: Ids of nodes that will leave soon.
        now: Monotonic time in seconds.
    """
    leaving = [worker for worker in roster if worker.node in draining] if draining else []
    num_leaving_busy = sum(worker.state == "busy" for worker in leaving)
    demand = num_queued + roster.count("busy") - num_leaving_busy
    wanted = min(limits.max_workers, max(limits.min_workers, demand))
    released = [worker for worker in leaving if worker.state != "busy"]
    size = len(roster) - len(leaving)
    # First workers that no node has room for, then those that load, then the longest idle.
    for state in ("pending", "starting", "idle"):
        for worker in roster.having(state):
            if worker.node in draining:
                continue
            idles = state != "starting" and now - worker.since > limits.idle_release_s
            if size <= (wanted if idles else limits.max_workers):
                break  # the others have idled for less
            released.append(worker)
            size -= 1
    return Change(max(0, wanted - size), tuple(released))

"""Which busy workers may be lent more, and whose requests others may take over."""

from __future__ import annotations

import math

from actors.pool.roster import Roster
from actors.pool.state import Durations, Lease, Worker


def with_room(roster: Roster, lease: Lease, ahead: int) -> Worker | None:
    """Return the worker that has worked for longest of those that may take a request ahead."""
    if not ahead:
        return None
    rooms = (worker for worker in roster.having("busy") if worker.may_take(lease, ahead))
    return next(rooms, None)


def unbegun(roster: Roster) -> Lease | None:
    """Return a request that was lent ahead to one worker alone, if there is any."""
    ahead = (
        lease
        for worker in roster.having("busy")
        for lease in list(worker.leases)[1:]
        if not lease.is_shared
    )
    return next(ahead, None)


def num_ahead(roster: Roster) -> int:
    """Return how many requests wait behind others at one worker alone, and are not answered."""
    return sum(
        not lease.is_shared and not lease.future.done()
        for worker in roster.having("busy")
        for lease in list(worker.leases)[1:]
    )


def next_straggler(roster: Roster, durations: Durations) -> tuple[float, Worker] | None:
    """Return the worker whose request is the first that will have taken too long, and when.

    Requests that a second worker has already are left out, and those that are like no other.
    """
    due = [
        (worker.since + durations.long(lease.kind), worker)
        for worker in roster.having("busy")
        if not (lease := next(iter(worker.leases))).is_shared
    ]
    first = min(due, key=lambda each: each[0], default=None)
    return None if first is None or math.isinf(first[0]) else first

"""When a pool must look at itself again though nothing happened: a pure function."""

from __future__ import annotations

import time

from actors.pool.lending import next_straggler
from actors.pool.placing import ask_s
from actors.pool.roster import Roster
from actors.pool.state import Durations, Limits, Starts


def seconds_to_next(
    roster: Roster, starts: Starts, durations: Durations, limits: Limits, asked: float = 0.0
) -> float | None:
    """Return the seconds until something is due; None = nothing ever is.

    Args:
        roster: All workers of the pool.
        starts: Those that failed.
        durations: What is usual.
        limits: Of the pool.
        asked: When it was last asked which of those that wait have a place.
    """
    now = time.monotonic()
    due = [starts.next] if starts.next else list[float]()
    if busy := roster.oldest("busy"):
        due.append(busy.since + limits.request_timeout_s)
    if starting := roster.oldest("starting"):
        due.append(starting.since + limits.start_timeout_s)
    if pending := roster.oldest("pending"):
        due.append(max(pending.since, asked) + ask_s(limits))
    if roster.count("idle") and (slow := next_straggler(roster, durations)):
        due.append(slow[0])
    if len(roster) > limits.min_workers:
        # At least a second: a worker that may go but is still in demand must not spin us.
        spare = filter(None, (roster.oldest("pending"), roster.oldest("idle")))
        due += [max(now + 1.0, worker.since + limits.idle_release_s) for worker in spare]
    # A little more than due, so that the comparison on waking is not lost to rounding.
    return max(0.0, min(due) - now) + 0.001 if due else None

"""Whether workers that do not answer have a place: one may hang before it can say so."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import ray
import ray._private.state

from actors.pool.roster import Roster
from actors.pool.state import Limits, Worker

_ASK_S = 30.0


def ask_s(limits: Limits) -> float:
    """Return the seconds between two looks at workers that wait for a place."""
    return min(_ASK_S, limits.start_timeout_s)


def placed_in_silence(roster: Roster, limits: Limits, now: float) -> list[Worker]:
    """Return the workers that have had a place for a while and have not said so."""
    waiting = [one for one in roster.having("pending") if now - one.since > ask_s(limits)]
    return [worker for worker in waiting if _has_process(worker.handle)]


def _has_process(handle: Any) -> bool:
    """Ask Ray's head whether an actor that is not up yet has a process; not so, if it is away.

    It is told of a node as soon as it waits there. The port is 0 then, or, if it was sent there by
    another node, that of the node's own process; only where it has a place it is its own. Ray
    itself replaces processes that hang before they are given to an actor.
    """
    if (address := address_of(handle)) is None:
        return False
    with suppress(Exception):
        node, port = address
        return port != next(one["NodeManagerPort"] for one in ray.nodes() if one["NodeID"] == node)
    return False


def address_of(handle: Any) -> tuple[str, int] | None:
    """Return the id of an actor's node and its port there, as Ray's head has them; None = none."""
    with suppress(Exception):
        # Not public; the state API would ask the dashboard, which a cluster need not have.
        known: Any = ray._private.state.actors(handle._actor_id.hex())
        if (port := known["Address"]["Port"]) > 0:
            return known["Address"]["NodeID"], port
    return None

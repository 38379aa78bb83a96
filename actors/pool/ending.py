"""The end of a worker that hangs, also where Ray does not bring it about."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psutil
import ray
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.pool.placing import address_of

_RAY_S = 10.0
"""What Ray itself is given: it ends a process that does not answer after 5 s."""


def end(handle: ActorHandle, *, hangs: bool) -> None:
    """End a worker's process at once.

    Args:
        handle: The worker.
        hangs: It did not answer in time. Ray (2.60) gives up at once, and tells nobody, if its node
            cannot even connect to a process, as to one that was stopped before it ever did: this
            keeps its place and its memory for good. So its node is asked to look.
    """
    place = address_of(handle) if hangs else None
    ray.kill(handle, no_restart=True)
    if place is None:
        return
    with suppress(Exception):  # its node, or Ray's head, is away
        node, port = place
        strategy = NodeAffinitySchedulingStrategy(node, soft=False)
        _kill_listener.options(scheduling_strategy=strategy).remote(port, _RAY_S)


@ray.remote(num_cpus=0, max_retries=0)
def _kill_listener(port: int, after_s: float) -> None:
    """Kill the worker of Ray's that listens on a port of this node, if it still does then."""
    time.sleep(after_s)
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if "".join(process.cmdline()).startswith("ray::") and any(
                each.status == psutil.CONN_LISTEN and each.laddr.port == port
                for each in process.net_connections("tcp")
            ):
                os.kill(process.pid, signal.SIGKILL)

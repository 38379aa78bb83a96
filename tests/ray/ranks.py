"""What tests do to Ray Train ranks."""

from __future__ import annotations

import os
import signal
from typing import Any

import ray
from ray.util.state import list_actors


def kill_rank() -> None:
    """Kill a process of the worker group without warning."""
    os.kill(processes("RayTrainWorker")[-1], signal.SIGKILL)


def processes(class_name: str) -> list[int]:
    """Return the process ids of live actors of a class, in this cluster."""
    # Without an address, any other on the machine may answer.
    address = ray.get_runtime_context().gcs_address
    alive: list[Any] = list_actors(address, filters=[("state", "=", "ALIVE")])
    return [actor.pid for actor in alive if actor.class_name == class_name]

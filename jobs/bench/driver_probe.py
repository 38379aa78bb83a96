"""What a driver costs, and what its cluster holds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast

import psutil
import ray
from ray._private.internal_api import node_stats
from ray._private.worker import global_worker


@dataclass(frozen=True, slots=True)
class Probe:
    """The driver and its cluster at one moment."""

    at: float
    """Monotonic seconds."""
    cpu_s: float
    """Processor time of this process so far, Ray's threads in it included."""
    memory_bytes: int
    """Resident memory without shared pages, such as those of the object store."""
    num_fds: int
    num_threads: int
    num_references: int
    """Objects that this process knows of."""
    num_processes: int
    """All descendants: workers, and Ray's own where the cluster is this process's."""
    store_bytes: int
    """Used in the object stores of all nodes."""


def probe() -> Probe:
    """Measure now; takes some milliseconds."""
    process, worker = psutil.Process(), cast(Any, global_worker)
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        num_threads = process.num_threads()
    return Probe(
        at=time.monotonic(),
        cpu_s=times.user + times.system,
        memory_bytes=memory.rss - memory.shared,
        num_fds=process.num_fds(),
        num_threads=num_threads,
        num_references=len(worker.core_worker.get_all_reference_counts()),
        num_processes=len(process.children(recursive=True)),
        store_bytes=store_bytes(),
    )


def store_bytes() -> int:
    """Return how many bytes lie in the object stores of all nodes."""
    alive = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return sum(node_store(node).object_store_bytes_used for node in alive)


def node_store(node_id: str) -> Any:
    """Return what a node says of its object store (Ray's `ObjectStoreStats`)."""
    (node,) = (node for node in ray.nodes() if node["NodeID"] == node_id)
    # Not public: the public ways go through the dashboard, which takes longer than a step.
    address, port = node["NodeManagerAddress"], node["NodeManagerPort"]
    return node_stats(address, port, include_memory_info=False).store_stats

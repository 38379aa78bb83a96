"""Worker pools among the metrics of each step."""

from __future__ import annotations

from collections.abc import Mapping

from actors.pool.pool import ElasticPool
from videorl.protocols import MetricSink


class PoolSizesSink:
    """A `videorl.protocols.MetricSink` that adds the state of the pools at the end of each step.

    `pool/<name>_workers` counts ready workers, `_starting` workers that are not ready yet, `_busy`
    workers with a request, `_queued` requests without a worker.

    Args:
        sink: Gets each step's metrics, with these added.
        pools: Name -> pool.
    """

    def __init__(self, sink: MetricSink, pools: Mapping[str, ElasticPool]) -> None:
        self._sink = sink
        self._pools = pools

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        sizes: dict[str, float] = {}
        for name, pool in self._pools.items():
            stats = pool.stats()
            for count in ("workers", "starting", "busy", "queued"):
                sizes[f"pool/{name}_{count}"] = float(getattr(stats, count))
        self._sink.write(step, {**metrics, **sizes})

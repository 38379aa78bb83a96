"""Worker pools among the metrics of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from actors.pool.pool import ElasticPool
from videorl.protocols import MetricSink


class PoolSizesSink:
    """A `videorl.protocols.MetricSink` that adds the state of the pools at the end of each step.

    `pool/<name>_workers` counts ready workers, `_starting` workers that are not ready yet,
    `_pending` those of them that no node has room for, `_busy` workers with a request, `_queued`
    requests without a worker; `_repeated_for_speed`, once there are any, all requests that went to
    a second worker as the first took long.

    Args:
        sink: Gets each step's metrics, with these added.
        pools: Name -> pool.
        faults: Name of a metric -> what counts something bad; absent where that is 0.
    """

    def __init__(
        self,
        sink: MetricSink,
        pools: Mapping[str, ElasticPool],
        faults: Mapping[str, Callable[[], int]] | None = None,
    ) -> None:
        self._sink = sink
        self._pools = pools
        self._faults = faults or {}

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        sizes: dict[str, float] = {}
        for name, pool in self._pools.items():
            stats = pool.stats()
            for count in ("workers", "starting", "pending", "busy", "queued"):
                sizes[f"pool/{name}_{count}"] = float(getattr(stats, count))
            if stats.repeated_for_speed:
                sizes[f"pool/{name}_repeated_for_speed"] = float(stats.repeated_for_speed)
        counts = {name: float(found) for name, of in self._faults.items() if (found := of())}
        self._sink.write(step, {**metrics, **sizes, **counts})

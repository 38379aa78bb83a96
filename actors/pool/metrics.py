"""Worker pools among the metrics of each step."""

from __future__ import annotations

from collections.abc import Mapping

from actors.pool.pool import ElasticPool
from videorl.protocols import MetricSink


class PoolSizesSink:
    """A `videorl.protocols.MetricSink` that adds how the pools are as a step ends.

    `pool/<name>_workers` counts ready workers, `_starting` those that are not ready yet, `_busy`
    those at work, `_queued` the requests that nobody holds.

    Args:
        sink: Gets the step's own metrics with these.
        pools: By name.
    """

    def __init__(self, sink: MetricSink, pools: Mapping[str, ElasticPool]) -> None:
        self._sink = sink
        self._pools = pools

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        found: dict[str, float] = {}
        for name, pool in self._pools.items():
            now = pool.stats()
            for what in ("workers", "starting", "busy", "queued"):
                found[f"pool/{name}_{what}"] = float(getattr(now, what))
        self._sink.write(step, {**metrics, **found})

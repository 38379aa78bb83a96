"""Worker pools, and the work of their workers, among the metrics of each step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from actors.pool.pool import ElasticPool
from videorl.protocols import MetricSink

_SIZES = ("workers", "starting", "pending", "busy", "queued")
_TOTALS = ("retried", "replaced", "fenced", "repeated_for_speed")


def pool_metrics(pools: Mapping[str, ElasticPool]) -> dict[str, float]:
    """Return the state of the pools at this moment.

    `pool/<name>_workers` counts ready workers, `_starting` workers that are not ready yet,
    `_pending` those of them that no node has room for, `_busy` workers with a request, `_queued`
    requests without a worker. Totals, absent while they are 0: `_retried` requests, `_replaced`
    workers, `_fenced` those of them whose weights or samples were wrong, `_repeated_for_speed`
    requests that went to a second worker as the first took long.
    """
    found: dict[str, float] = {}
    for name, pool in pools.items():
        stats = pool.stats()
        found |= {f"pool/{name}_{size}": float(getattr(stats, size)) for size in _SIZES}
        found |= {
            f"pool/{name}_{total}": float(count)
            for total in _TOTALS
            if (count := getattr(stats, total))
        }
    return found


@dataclass
class PoolSizesSink:
    """A `videorl.protocols.MetricSink` that adds the state of the pools at the end of each step."""

    sink: MetricSink
    """Gets each step's metrics, with these added."""
    pools: Mapping[str, ElasticPool]
    """Name -> pool."""
    faults: Mapping[str, Callable[[], int]] = field(default_factory=dict[str, Callable[[], int]])
    """Name of a metric -> what counts something bad; absent where that is 0."""
    work: Callable[[], Mapping[str, float]] = dict
    """Stage -> seconds that workers have spent in it so far; `work/<stage>_s` is what was added
    since the step before."""

    def __post_init__(self) -> None:
        """Begin to count: what was done before, such as an evaluation, is of no step."""
        self._before = dict(self.work())

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        counts = {name: float(found) for name, of in self.faults.items() if (found := of())}
        now = dict(self.work())
        spent = {f"work/{name}_s": now[name] - self._before.get(name, 0.0) for name in now}
        self._before = now
        self.sink.write(step, {**metrics, **pool_metrics(self.pools), **counts, **spent})

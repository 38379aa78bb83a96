"""Changes from outside to the pools of a running run: `videorl scale`, and nodes that leave."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from actors.pool.pool import ElasticPool
from actors.pool.state import PoolStats
from actors.seats.booking import draining_nodes
from videorl.run.background import repeating
from videorl.run.folder import RunFolder
from videorl.run.pool_sizes import (
    PoolSize,
    PoolState,
    read_states,
    read_wishes,
    write_states,
)

logger = logging.getLogger(__name__)

_INTERVAL_S, _REPORT_S = 1.0, 30.0


@contextmanager
def controlled(
    folder: RunFolder, pools: Mapping[str, ElasticPool], places: Callable[[], str] | None = None
) -> Iterator[None]:
    """Follow `videorl scale` and Ray's list of draining nodes, on a thread, inside the block."""
    with repeating(PoolControl(folder, pools, places).once, _INTERVAL_S, "pool control"):
        yield


class PoolControl:
    """Resizes pools as wished, drains nodes that leave, and writes the state of the pools.

    It also says which pool has requests and for long nobody to work on them: the loop only waits.

    Args:
        folder: The run's folder, through which `videorl scale` speaks.
        pools: Name -> pool, still with the recipe's sizes.
        places: Says who has what of the cluster; None = nothing is said of it.
    """

    def __init__(
        self,
        folder: RunFolder,
        pools: Mapping[str, ElasticPool],
        places: Callable[[], str] | None = None,
    ) -> None:
        self._places = places or str
        self._waits: dict[str, Wait] = {name: Wait() for name in pools}
        self._folder = folder
        self._pools = pools
        self._recipe = {name: _size(pool) for name, pool in pools.items()}
        self._draining: frozenset[str] = frozenset()
        read = read_states(folder)
        self._beat = 0 if read is None else read[0]

    def once(self) -> None:
        """Apply what is new, and write the state of the pools."""
        self._drain(draining_nodes())
        for name, wish in read_wishes(self._folder).items():
            # A wish from before the recipe's own sizes were changed is out of date.
            if name in self._pools and wish.recipe == self._recipe[name]:
                self._resize(name, wish.size)
        self._tell_who_waits()
        self._beat += 1
        states = {name: _state(pool, self._recipe[name]) for name, pool in self._pools.items()}
        write_states(self._folder, self._beat, states)

    def _drain(self, nodes: frozenset[str]) -> None:
        if nodes == self._draining:
            return
        self._draining = nodes
        logger.warning("nodes about to leave: %s", ", ".join(sorted(nodes)) or "none any more")
        for pool in self._pools.values():
            pool.drain(nodes)

    def _tell_who_waits(self) -> None:
        now = time.monotonic()
        for name, pool in self._pools.items():
            stats = pool.stats()
            if waited := self._waits[name].seconds(stats, now):
                logger.warning(
                    "%s: %d requests wait, and for %.0f s no worker was ready (%d load, %d have no "
                    "place); %s",
                    name,
                    stats.queued,
                    waited,
                    stats.starting - stats.pending,
                    stats.pending,
                    self._places(),
                )

    def _resize(self, name: str, size: PoolSize) -> None:
        pool = self._pools[name]
        if size != (before := _size(pool)):
            logger.warning(
                "%s workers: %d to %d from now on, before %d to %d",
                name,
                size.min_workers,
                size.max_workers,
                before.min_workers,
                before.max_workers,
            )
            pool.resize(size.min_workers, size.max_workers)


class Wait:
    """For how long a pool has had requests and no worker that is ready."""

    def __init__(self) -> None:
        self._since = self._said = 0.0

    def seconds(self, stats: PoolStats, now: float) -> float:
        """Return it if that is to be said now, which is every 30 s; else 0."""
        if stats.workers or not stats.queued:
            self._since = 0.0
        elif not self._since:
            self._since = self._said = now
        elif now - self._said >= _REPORT_S:
            self._said = now
            return now - self._since
        return 0.0


def _size(pool: ElasticPool) -> PoolSize:
    return PoolSize(pool.limits.min_workers, pool.limits.max_workers)


def _state(pool: ElasticPool, recipe: PoolSize) -> PoolState:
    stats = pool.stats()
    return PoolState(_size(pool), recipe, stats.workers, stats.starting, stats.busy, stats.queued)

"""Changes from outside to the pools of a running run: `videorl scale`, and nodes that leave."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from actors.pool.pool import ElasticPool
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

_INTERVAL_S = 1.0


@contextmanager
def controlled(folder: RunFolder, pools: Mapping[str, ElasticPool]) -> Iterator[None]:
    """Follow `videorl scale` and Ray's list of draining nodes, on a thread, inside the block."""
    with repeating(PoolControl(folder, pools).once, _INTERVAL_S, "pool control"):
        yield


class PoolControl:
    """Resizes pools as wished, drains nodes that leave, and writes the state of the pools.

    Args:
        folder: The run's folder, through which `videorl scale` speaks.
        pools: Name -> pool, still with the recipe's sizes.
    """

    def __init__(self, folder: RunFolder, pools: Mapping[str, ElasticPool]) -> None:
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


def _size(pool: ElasticPool) -> PoolSize:
    return PoolSize(pool.limits.min_workers, pool.limits.max_workers)


def _state(pool: ElasticPool, recipe: PoolSize) -> PoolState:
    stats = pool.stats()
    return PoolState(_size(pool), recipe, stats.workers, stats.starting, stats.busy, stats.queued)

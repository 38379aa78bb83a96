"""Who has the cluster's CPUs and GPUs, in a line for those who wait for some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ray

from actors.placement import Placement, Role
from actors.pool.pool import ElasticPool
from actors.pool.state import PoolStats

_MUCH = 0.005
"""Shares of GPUs are rounded to a hundredth."""

_NONE: Mapping[str, ElasticPool] = {}


class Places:
    """What a run needs of its cluster, and what its pools have of it.

    Args:
        placement: What the run needs.
        pools: Name of a role -> its pool, as they are started.
    """

    def __init__(self, placement: Placement, pools: Mapping[str, ElasticPool] = _NONE) -> None:
        self._placement = placement
        self.pools = pools

    def __call__(self) -> str:
        """Return what is needed, registered and available now, and who holds what."""
        stats = {name: pool.stats() for name, pool in self.pools.items()}
        return describe(self._placement, stats, ray.cluster_resources(), ray.available_resources())


def describe(
    placement: Placement,
    stats: Mapping[str, PoolStats],
    registered: Mapping[str, float],
    available: Mapping[str, float],
) -> str:
    """Return e.g. `CPU 6 / 4 / 0, GPU 0 / 0 / 0 (needed / registered / available); held by …`.

    Args:
        placement: What the run needs.
        stats: Name of a role -> the state of its pool.
        registered: Resources of all live nodes.
        available: Those of them that nobody has.
    """
    needed = {"CPU": placement.num_cpus(), "GPU": placement.num_gpus()}
    sums = ", ".join(
        f"{kind} {needed[kind]:g} / {registered.get(kind, 0):g} / {available.get(kind, 0):g}"
        for kind in needed
    )
    held = _held(placement.roles(), stats, registered, available)
    return f"{sums} (needed / registered / available){held}"


def _held(
    roles: Sequence[Role],
    stats: Mapping[str, PoolStats],
    registered: Mapping[str, float],
    available: Mapping[str, float],
) -> str:
    """Return who holds what is not available, and whose workers wait for a place too."""
    left = {kind: registered.get(kind, 0) - available.get(kind, 0) for kind in ("CPU", "GPU")}
    held: list[str] = []
    pending: list[str] = []
    for role in roles:
        if (pool := stats.get(role.name)) is None:
            continue
        placed = pool.workers + pool.starting - pool.pending
        takes = {"CPU": placed * role.num_cpus, "GPU": placed * role.num_gpus}
        left = {kind: left[kind] - takes[kind] for kind in left}
        if placed:
            held.append(f"{placed} {role.name} with {_amounts(takes)}")
        if pool.pending:
            pending.append(f"{pool.pending} {role.name}")
    if any(amount > _MUCH for amount in left.values()):
        held.append(f"the rest of this run, or others, with {_amounts(left)}")
    text = f"; held by {', '.join(held)}" if held else ""
    return text + (f"; {', '.join(pending)} wait too" if pending else "")


def _amounts(amounts: Mapping[str, float]) -> str:
    some = [f"{amount:g} {kind}" for kind, amount in amounts.items() if amount > _MUCH]
    return " and ".join(some) or "no CPU and no GPU"

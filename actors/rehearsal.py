"""The rehearsal of a run on Ray: what `videorl.rehearsal` cannot see of remote workers."""

from __future__ import annotations

from typing import Any

import ray

from actors.assembly import Assembly
from actors.pool.pool import ElasticPool
from videorl.config import Recipe
from videorl.rehearsal import Rehearsal, release
from videorl.run.folder import RunFolder


def rehearse(recipe: Recipe, folder: RunFolder, assembly: Assembly) -> None:
    """Rehearse an online run, unless that is done or not wanted.

    Raises:
        RehearsalError: A part failed.
    """
    pools = {"generator": [assembly.generator.pool], "rewards": assembly.scorer.pools}
    Rehearsal(recipe, folder, cluster_devices()).whole_run(
        assembly.generator,
        assembly.scorer,
        assembly.learner,
        assembly.learner.newest(),
        lambda part: max(map(_released, pools[part])),
    )


def cluster_devices() -> list[str]:
    """Return the kinds of accelerators of all nodes that are alive, one entry for each node."""
    return [
        name
        for node in ray.nodes()
        if node["Alive"]
        for name in node["Resources"]
        if name.startswith("accelerator_type:")
    ]


def _released(pool: ElasticPool) -> float:
    """Empty the GPU cache of the pool's worker that answered last; return its peak in GiB."""
    peak_gib = pool.submit(lambda worker: [worker.__ray_call__.remote(_release)]).result().value
    return float(peak_gib)


def _release(_: Any) -> float:
    return release()

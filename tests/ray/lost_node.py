"""What nodes have, and a node that leaves with the latents that it holds: a program for tests.

Prints one JSON object. A process of its own, as its cluster is.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import ray
import torch
from ray.cluster_utils import Cluster
from ray.experimental import get_object_locations

import videorl
from actors.cluster import check_versions, prepare_environment
from actors.store.kept_latents import Keepers, KeepingScorer
from actors.store.media import Packed, fetch, pack
from tests.fakes import FakeReward, grey, group_of
from videorl.config import RewardConfig
from videorl.errors import MediaLostError, ResourceError
from videorl.sampling.local import LocalScorer
from videorl.selection import best_vs_worst

SIZE = 100_000
"""Large enough for the object store of the node that makes it."""


@ray.remote(num_cpus=1, resources={"away": 0.1}, max_retries=0)
def sampled(value: float) -> Packed:
    """Return latents that lie on the node that leaves."""
    return pack(torch.full((SIZE,), value))


def outcome(ref: Any) -> float | str:
    """Return what is behind a handle, or the name of the error."""
    try:
        return float(fetch([ref])[0][-1])
    except MediaLostError as error:
        return type(error).__name__


def where(ref: Any) -> list[str]:
    """Return which resources the nodes have on which an object lies."""
    places = get_object_locations([ref])[ref]["node_ids"]
    found = [node for node in ray.nodes() if node["NodeID"] in places]
    names = {"stays", "away"}
    return sorted(name for node in found for name in names & node["Resources"].keys()) + [
        node["NodeID"] for node in found
    ]


def has_torch(keeper: Any) -> bool:
    """Tell whether the process has loaded torch."""
    import sys

    return "torch" in sys.modules


LEAST = {"health_check_period_ms": 1000, "health_check_failure_threshold": 6}
"""By default Ray looks at a node every three seconds."""


def doctor(address: str) -> dict[str, list[str]]:
    """Return check -> what the doctor finds on this cluster, of a learner that no node can have."""
    from jobs.doctor import check_recipe

    findings = check_recipe("moving_shapes", ["learner.resources={away: 2}"], address)
    return {finding.name: [finding.status, finding.found] for finding in findings}


def compared() -> list[str]:
    """Return what the check of versions says of these nodes, then of a driver of another version.

    Empty texts stand for nothing.
    """
    said: list[str] = []
    for version in (videorl.__version__, "0.0.1-other"):
        before, videorl.__version__ = videorl.__version__, version
        try:
            check_versions()
            said.append("")
        except ResourceError as error:
            said.append(str(error))
        videorl.__version__ = before
    return said


def main() -> None:
    """Ask the doctor; score one group before its node is lost, and another after that."""
    prepare_environment()
    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "resources": {"stays": 1}, "_system_config": LEAST},
    )
    node = cluster.add_node(num_cpus=4, resources={"away": 1})
    findings = doctor(cluster.address)
    cluster.add_node(num_cpus=1, resources={"stays": 1})
    ray.init(address=cluster.address)
    versions = compared()
    scorer = LocalScorer({"one": FakeReward()}, [RewardConfig(name="one")], lambda video: {})
    keepers = Keepers("stays")
    keepers.check()
    keeping = KeepingScorer(scorer, best_vs_worst, keepers)
    refs = [sampled.remote(float(index)) for index in range(6)]
    ray.wait(refs, num_returns=6, fetch_local=False)
    group = group_of([grey(level) for level in (1, 2, 3)])

    def holding(latents: list[Any]) -> Any:
        candidates = zip(group.candidates, latents, strict=True)
        made = tuple(replace(one, latents=ref) for one, ref in candidates)
        return replace(group, candidates=made, prompt_embeds=ray.put(pack(torch.zeros(SIZE))))

    kept = keeping.submit(holding(refs[:3])).result(180)
    again = keeping.submit(holding(refs[:3])).result(180)
    keeping_nodes = [where(group.candidates[0].candidate.latents) for group in (kept, again)]
    del again
    cluster.remove_node(node, allow_graceful=False)
    found: dict[str, Any] = {
        "doctor": findings,
        "resources": keeping_nodes,
        "torch": ray.get([one.__ray_call__.remote(has_torch) for one in keepers.started()]),
        "versions": versions,
        "kept": [outcome(one.candidate.latents) for one in kept.candidates],
    }
    try:
        keeping.submit(holding(refs[3:])).result(180)
    except MediaLostError as error:
        found["too_late"] = type(error).__name__
    print(json.dumps(found), flush=True)
    ray.shutdown()
    # Also takes back the address of this cluster, which others on the machine would ask for ever.
    cluster.shutdown()


if __name__ == "__main__":
    main()

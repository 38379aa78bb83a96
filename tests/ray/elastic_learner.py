"""A learner that grows and shrinks with its cluster: a program for tests.

Usage: `python -m tests.ray.elastic_learner CHECKPOINT FOLDER`; prints one JSON object. A process of
its own, as its cluster is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from actors.cluster import prepare_environment


def main(checkpoint: Path, folder: Path) -> None:  # noqa: PLR0915 - a story
    """One rank; a second node joins; it is lost again. Two steps each time."""
    prepare_environment()
    # `Cluster` finds its own processes; the state API that Ray Train asks is the dashboard's.
    cluster: Any = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 4,
            "resources": {"learner": 1},
            "include_dashboard": True,
            "dashboard_port": 0,
        },
    )
    os.environ["RAY_ADDRESS"] = cluster.address  # other clusters may run on this machine
    ray.init(address=cluster.address)
    from actors.learner.learner import RayLearner
    from actors.learner.rank_group import LearnerResources
    from actors.placement import Placement, Role
    from actors.seats.booking import booked
    from actors.store.weights import create_weight_store, pull
    from tests.ray.test_learner import run_steps, small_recipe
    from videorl.weights import digest

    recipe = small_recipe(checkpoint)
    recipe.learner.zero_stage = 2
    nobody, role = Role("nobody", 0, 0.0, 0.0), Role("learner", 1, 1.0, 0.0, {"learner": 1.0})
    placement = Placement(nobody, nobody, (), role)
    stack = ExitStack()
    booking = stack.enter_context(booked(placement, "run", str, can_grow=False, most_ranks=2))
    name = booking.ranks.name if booking.ranks else ""
    resources = LearnerResources(1, 1.0, 0.0, 2, role.custom, resize_s=1.0, seats_name=name)
    store = create_weight_store(keep=1)
    learner = RayLearner(recipe, folder, store, resources, str)
    learner.start()
    metrics = run_steps(learner, 0, 2)
    learner.save({"step": 2}).result()

    def seconds_to_start(number: int) -> float:
        started = time.monotonic()
        while learner.starts() < number:
            assert time.monotonic() - started < 120, "the group was not resized"
            time.sleep(0.2)
        return time.monotonic() - started

    node = cluster.add_node(num_cpus=1, resources={"learner": 1})
    grown_s = seconds_to_start(2)
    ranks = [learner.num_ranks()]
    metrics += run_steps(learner, 2, 4)
    learner.save({"step": 4}).result()
    cluster.remove_node(node, allow_graceful=False)
    shrunk_s = seconds_to_start(3)
    ranks.append(learner.num_ranks())
    metrics += run_steps(learner, 4, 6)
    version = metrics[-1].pop("version")
    found = {
        "ranks": ranks,
        "grown_s": grown_s,
        "shrunk_s": shrunk_s,
        "metrics": [{k: v for k, v in one.items() if k != "version"} for one in metrics],
        "is_published": digest(pull(store, version)) == version.digest,
    }
    print(json.dumps(found))
    learner.close()
    stack.close()
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

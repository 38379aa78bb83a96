"""Wait for every place of a cluster, as workers that are too many do: a program for the suite."""

from __future__ import annotations

import sys
import time

import ray
from ray.util.placement_group import placement_group

from tests.chaos.faults import STARVING


def main(seconds: float) -> None:
    """Hold what is free, wait for what becomes free, and give all back after some seconds."""
    ray.init(address="auto", log_to_driver=False)
    count = int(ray.cluster_resources()["CPU"]) + 8
    groups = [placement_group([{"CPU": 1.0}]) for _ in range(count)]
    while ray.available_resources().get("CPU", 0.0) >= 1.0:
        time.sleep(0.1)
    print(f"{STARVING} ({len(groups)})", flush=True)
    time.sleep(seconds)


if __name__ == "__main__":
    main(float(sys.argv[1]))

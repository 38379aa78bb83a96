"""The benchmark of the learner compares steps of equal results."""

from __future__ import annotations

from jobs.bench.learner import measure
from videorl.recipes.reading import load_recipe


def test_prefetching_changes_no_weight() -> None:
    settings = ["sampling.num_frames=9", "objective.timesteps_per_pair=1"]
    found = measure(load_recipe("moving_shapes", [*settings, "learner.micro_batch_size=2"]), 2, 1)
    assert found.pop("largest difference of weights") == 0
    assert min(found.values()) > 0

"""Ray Train's helpers ask the Ray that they run in, also where a machine has several."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.train.v2.api import data_parallel_trainer as trainer


@contextmanager
def ask_this_cluster() -> Iterator[None]:
    """Tell processes that Ray Train starts inside the block which cluster they belong to.

    Its PlacementGroupCleaner (Ray 2.60) asks the state API whether the controller is alive. Without
    `RAY_ADDRESS` the API looks for any Ray on the machine: with several it fails every second, with
    a warning each time, or asks another one, which does not know the controller, and the cleaner
    takes the learner's resources away. Ray Train passes on only variables that it knows, and the
    address of a new cluster is not known before it has started.
    """
    stock = trainer.get_env_vars_to_propagate
    address = ray.get_runtime_context().gcs_address
    trainer.get_env_vars_to_propagate = lambda: {**stock(), "RAY_ADDRESS": address}
    try:
        yield
    finally:
        trainer.get_env_vars_to_propagate = stock

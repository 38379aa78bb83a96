"""What Ray Train starts belongs to the cluster of the run, whatever else runs on the machine."""

import pytest
import ray
from ray.train.v2.api import data_parallel_trainer

from actors.learner.own_cluster import ask_this_cluster


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_ray_train_passes_on_the_address_of_its_cluster_while_it_runs() -> None:
    stock = data_parallel_trainer.get_env_vars_to_propagate()
    assert "RAY_ADDRESS" not in stock
    with ask_this_cluster():
        passed_on = data_parallel_trainer.get_env_vars_to_propagate()
    address = ray.get_runtime_context().gcs_address
    assert passed_on == {**stock, "RAY_ADDRESS": address}
    assert data_parallel_trainer.get_env_vars_to_propagate() == stock

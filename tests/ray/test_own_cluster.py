"""What Ray Train starts belongs to the cluster of the run, whatever else runs on the machine."""

import logging

import psutil
import pytest
import ray
from ray._private.authentication import authentication_token_setup
from ray.train.v2.api import data_parallel_trainer

from actors.cluster import prepare_environment
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


@pytest.mark.ray
@pytest.mark.usefixtures("cluster")
def test_the_head_remembers_few_tasks() -> None:
    """It keeps 3 kB for each; what else `jobs.bench.orchestration head` measures."""
    (head,) = (p for p in psutil.Process().children(recursive=True) if p.name() == "gcs_server")
    assert head.environ()["RAY_task_events_max_num_task_in_gcs"] == "10000"


@pytest.mark.ray
def test_that_a_token_protects_the_cluster_is_not_said_but_that_none_does_is() -> None:
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    prepare_environment()
    log, kept = logging.getLogger(authentication_token_setup.__name__), Kept()
    log.addHandler(kept)
    try:
        authentication_token_setup._warn_token_auth_enabled()
        authentication_token_setup._warn_token_auth_disabled()
    finally:
        log.removeHandler(kept)
    (message,) = said
    assert message.startswith("Token authentication is disabled")

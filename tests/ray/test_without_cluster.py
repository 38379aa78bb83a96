"""Parts of a run on Ray that decide without asking a cluster."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayTaskError, RuntimeEnvSetupError

from actors import assembly, encoder
from actors.encoder import RayEncoder
from actors.monitoring.sink import RayMetricsSink
from actors.placement import Placement, Role
from actors.pool.outcomes import hopeless
from videorl.config import Recipe
from videorl.errors import PoolFailedError, PoolLostError
from videorl.run.folder import RunFolder


class _NoPool:
    """Takes requests that nobody answers, as slowly as a busy pool."""

    def __init__(self, *_: object) -> None:
        self.num_requests = 0

    def submit(self, call: Callable[[Any], list[Any]]) -> Future[Any]:
        self.num_requests += 1
        time.sleep(0.05)
        return Future()


def test_threads_that_ask_for_a_prompt_at_once_have_it_encoded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(encoder, "ElasticPool", _NoPool)
    monkeypatch.setattr(encoder.ray, "remote", lambda function: function)
    made = RayEncoder(lambda device: pytest.fail("not here"), {"num_cpus": 1.0})
    asking = [threading.Thread(target=made.submit, args=("a red circle",)) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join()
    assert made.pool.num_requests == 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("error", "has_served", "kind"),
    [
        (ActorDiedError(), False, PoolLostError),
        (RuntimeEnvSetupError("no such package"), False, PoolFailedError),
        (RuntimeEnvSetupError("no such package"), True, PoolLostError),
        (
            ActorDiedError(RayTaskError("init", "trace", ImportError("x"), "", 0, "", "", "0")),
            False,
            PoolFailedError,
        ),
    ],
)
def test_what_no_worker_can_be_made_with_is_a_mistake(
    error: Exception, has_served: bool, kind: type[PoolFailedError]
) -> None:
    assert type(hopeless("reward x", 3, error, has_served=has_served)) is kind


def test_a_learner_that_an_encoder_could_take_the_place_of_does_not_wait(tmp_path: Path) -> None:
    recipe = Recipe(name="small")
    recipe.policy.dtype = "float32"
    nobody = Role("nobody", 0, 0.0, 0.0)
    placement, folder = Placement(nobody, nobody, (), nobody), RunFolder(tmp_path)
    assert assembly._may_start_late(recipe, folder, placement)  # pyright: ignore[reportPrivateUsage]
    recipe.encoder.max_workers = 2
    assert not assembly._may_start_late(recipe, folder, placement)  # pyright: ignore[reportPrivateUsage]


def test_numbers_that_cannot_be_exported_end_no_run(caplog: pytest.LogCaptureFixture) -> None:
    sink = RayMetricsSink({"run": "first", "run_id": "0"}, {"num_steps": 4.0})
    with caplog.at_level(logging.WARNING):
        for step in range(2):
            sink.write(step, {"steps": 3.0, "pool/reward_busy": 1.0, "pool_busy": 2.0})
    sink.live({})
    sink.close()
    said = [record.getMessage().split(" is not exported")[0] for record in caplog.records]
    assert said == ["pool_busy"]

"""Checkpoints whose store hangs: neither a run nor its end waits for them for ever."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.loop_runs import recipe_with, start
from videorl.errors import PoolFailedError
from videorl.learning.learner import Learner


class HangingLearner:
    """Learns, but what it writes never arrives."""

    def __init__(self, inner: Learner) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Begin to write."""
        return Future()


@pytest.mark.parametrize("fails", [False, True], ids=["a run", "a run that an error ends"])
def test_a_store_that_hangs_costs_its_checkpoint_and_a_limited_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    recipe = recipe_with(0, interval=3)
    recipe.checkpoint.timeout_s = 0.01
    errors = {4: PoolFailedError("no generator starts any more")} if fails else {}
    run = start(tmp_path, recipe, errors=errors)
    run.parts = replace(run.parts, learner=HangingLearner(run.learner))
    with caplog.at_level(logging.ERROR):
        if fails:
            with pytest.raises(PoolFailedError, match="no generator starts"):
                run.train()
        else:
            assert run.train().step == recipe.num_steps
    assert "could not be written, the last one is from step 0: it was not written" in caplog.text

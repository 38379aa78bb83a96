"""Runs on Ray in an S3 store: a driver is killed, a store goes away, and the runs go on."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from actors.learner import rank_group
from actors.online_run import run_online
from tests.ray.conftest import ROOT
from tests.ray.whole_runs import assert_same_run
from tests.s3_server import Way
from tests.stored_run import disturbed, leave_for_good, recipe_of
from videorl import one_process
from videorl.errors import StoreLostError
from videorl.run.folder import RunFolder, open_run
from videorl.storage.preparing import open_place

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]


def test_a_driver_is_killed_and_the_run_goes_on_elsewhere_as_if_it_were_in_a_folder(
    s3: str, tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cluster was started without the store's credentials: ranks have them of the driver.

    The export comes to the driver as from a node that does not see its working copy.
    """
    policy = tiny_checkpoints["wan"]
    expected = recipe_of(tmp_path / "local", policy)
    with open_run(expected) as local:
        assert one_process.run(expected, local, lambda: False)

    address = ray.get_runtime_context().gcs_address
    words = ["-m", "tests.ray.stored_driver", s3, str(policy), address, "3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, *words], env=env, cwd=tmp_path).returncode == -9
    stored = open_place(s3).list()
    assert "checkpoints/step-000002/state.json" in stored
    assert "summary.json" not in stored

    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "another machine"))
    monkeypatch.setattr(rank_group, "own_node", lambda: "another node than that of the ranks")
    recipe = recipe_of(s3, policy)
    with open_run(recipe, take_over=True) as folder:
        assert run_online(recipe, folder, lambda: False)
    assert_same_run(folder.root, local.root)
    found = open_place(s3).list()
    assert "checkpoints/step-000006/state.json" in found
    assert "aligned/pytorch_lora_weights.safetensors" in found
    assert not [name for name in found if name.startswith("ray_train")]


@pytest.mark.long
def test_a_store_that_stays_away_ends_the_run_whose_rank_keeps_the_checkpoint_for_the_next(
    way: Way,
    s3: str,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    expected = recipe_of(tmp_path / "local", tiny_checkpoints["wan"])
    with open_run(expected) as local:
        assert one_process.run(expected, local, lambda: False)

    def start() -> RunFolder:
        recipe = recipe_of(s3, tiny_checkpoints["wan"])
        with open_run(recipe) as folder:
            assert run_online(recipe, folder, lambda: False)
        return folder

    disturbed(monkeypatch, {2: lambda: leave_for_good(way, s3)})
    with pytest.raises(StoreLostError, match="start the same command again on this machine"):
        start()
    way.mode = "pass"
    assert "checkpoints/step-000004/state.json" not in open_place(s3).list()
    disturbed(monkeypatch, {})
    assert_same_run(start().root, local.root)
    assert "stored what was kept on this machine: step-000004" in caplog.text

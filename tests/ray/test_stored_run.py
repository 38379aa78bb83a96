"""A run on Ray in an S3 store: its driver is killed, and another machine goes on with it."""

from __future__ import annotations

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
from tests.stored_run import recipe_of
from videorl import one_process
from videorl.run.folder import open_run
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
    monkeypatch.setattr(rank_group, "driver_node", lambda: "another node than that of the ranks")
    recipe = recipe_of(s3, policy)
    with open_run(recipe, take_over=True) as folder:
        assert run_online(recipe, folder, lambda: False)
    assert_same_run(folder.root, local.root)
    found = open_place(s3).list()
    assert "checkpoints/step-000006/state.json" in found
    assert "aligned/pytorch_lora_weights.safetensors" in found
    assert not [name for name in found if name.startswith("ray_train")]

"""Hub ids get their commit once, and a resumed run keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Hub, serve
from videorl.config import Recipe
from videorl.errors import CheckpointError, RunFolderError
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.run.pins import pin

SETTINGS = {"model_config": {"model_name_or_path": "q/base"}}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with serve(monkeypatch, tmp_path / "cache") as server:
        server.add("a/policy", {"model_index.json": "{}"})
        server.add("a/adapter", {"b/c.safetensors": ""})
        server.add("a/reward", {"model_config.json": json.dumps(SETTINGS)})
        server.add("q/base", {"config.json": "{}"})
        server.add("a/clip", {"config.json": "{}"})
        yield server


def recipe(run_dir: Path, *settings: str) -> Recipe:
    return load_recipe(
        "moving_shapes",
        [
            f"run_dir={run_dir}",
            "policy.path=a/policy",
            "policy.lora.initial=a/adapter/b/c.safetensors",
            "rewards=[{name: video_reward, path: a/reward}]",
            "selection={rule: best_vs_worst}",
            *settings,
        ],
    )


def commits(made: Recipe) -> list[str]:
    [reward] = made.rewards
    names = [made.policy.path, made.policy.lora.initial, reward.path, reward.options["base"]]
    return [str(name) for name in names]


def test_every_id_gets_a_commit_that_a_resumed_run_keeps(hub: Hub, tmp_path: Path) -> None:
    first = recipe(tmp_path / "run")
    with open_run(first) as folder:
        pass
    known = {name: hub.commit(name) for name in hub.repositories}
    assert commits(first) == [
        f"a/policy@{known['a/policy']}",
        f"a/adapter/b/c.safetensors@{known['a/adapter']}",
        f"a/reward@{known['a/reward']}",
        f"q/base@{known['q/base']}",
    ]
    assert commits(load_recipe(folder.config)) == commits(first)
    for name in list(hub.repositories):
        hub.add(name, {"new": "", "model_config.json": json.dumps(SETTINGS)})
    with open_run(again := recipe(tmp_path / "run", "num_steps=70")):
        assert commits(again) == commits(first)
    with open_run(again := load_recipe(folder.config)):
        assert commits(again) == commits(first)
    with open_run(again := recipe(tmp_path / "run")):
        assert commits(again) == commits(first)
    pin(other := recipe(tmp_path / "other"), {})
    assert not set(commits(other)) & set(commits(first))
    hub.add("a/policy", {"x": ""}, "v2")
    with (
        pytest.raises(RunFolderError, match=r"policy\.path"),
        open_run(recipe(tmp_path / "run", "policy.path=a/policy@v2")),
    ):
        pass


def test_a_revision_that_does_not_exist_is_refused_before_anything_is_written(
    hub: Hub, tmp_path: Path
) -> None:
    made = recipe(tmp_path / "run", "policy.path=a/policy@v9")
    with (
        pytest.raises(CheckpointError, match=r"^policy\.path: a/policy has no revision 'v9'"),
        open_run(made),
    ):
        pass
    assert not (tmp_path / "run/config.yaml").exists()


def test_a_base_in_a_local_folder_needs_no_hub(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "base").mkdir()
    (tmp_path / "model_config.json").write_text(json.dumps(SETTINGS))
    (tmp_path / "base/config.json").write_text("{}")
    made = recipe(tmp_path / "run", "policy.path=moving_shapes_wan", "policy.lora.initial=null")
    made.rewards[0].path = str(tmp_path)
    assert pin(made, {}) == {}


def test_offline_the_error_names_the_setting_of_the_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "model_config.json").write_text(json.dumps(SETTINGS))
    made = recipe(tmp_path / "run", "policy.path=moving_shapes_wan", "policy.lora.initial=null")
    made.rewards[0].path = str(tmp_path)
    with pytest.raises(CheckpointError, match=r"^rewards\.0\.options\.base: q/base .*local folder"):
        pin(made, {})

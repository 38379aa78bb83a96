"""Hub ids get their commit once, and a resumed run keeps it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hub_server import Hub, serve
from videorl.config import Recipe
from videorl.errors import CheckpointError, RunFolderError
from videorl.files.content import Content
from videorl.files.inputs import Input
from videorl.guidance.recipe import load_latent_reward_recipe
from videorl.recipes.reading import load_recipe
from videorl.reward_training.recipes import load_reward_recipe
from videorl.reward_training.video_reward_export import published_settings
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


def test_the_base_of_a_reward_training_gets_its_commit(hub: Hub, tmp_path: Path) -> None:
    settings = [f"run_dir={tmp_path / 'run'}", "model.base=q/base"]
    settings += [f"labels.{name}={tmp_path / 'labels.csv'}" for name in ("train", "held_out")]
    (tmp_path / "labels.csv").write_text("path_A,path_B\n")
    made = load_reward_recipe("video_reward", settings)
    with open_run(made) as folder:
        pass
    pinned = f"q/base@{hub.commit('q/base')}"
    assert made.model.base == pinned
    assert f"base: {pinned}\n" in folder.config.read_text()
    assert (
        published_settings(made, None)["model_config"]
        | {
            "model_name_or_path": "q/base",
            "model_revision": hub.commit("q/base"),
        }
        == published_settings(made, None)["model_config"]
    )
    hub.add("q/base", {"new": ""})
    with open_run(made := load_reward_recipe("video_reward", settings)):
        assert made.model.base == pinned, "a resumed training keeps it"


def test_the_policy_of_a_latent_reward_gets_its_commit(hub: Hub, tmp_path: Path) -> None:
    settings = [f"run_dir={tmp_path / 'run'}", "policy.path=a/policy"]
    made = load_latent_reward_recipe("moving_shapes", settings)
    with open_run(made):
        assert made.policy.path == f"a/policy@{hub.commit('a/policy')}"


def test_a_commit_that_does_not_exist_is_refused_unless_it_was_noted(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gone = f"a/policy@{'1' * 40}"
    with pytest.raises(CheckpointError, match="a/policy has no revision '1111"):
        pin(recipe(tmp_path / "run", f"policy.path={gone}"), {})
    known = {"policy.path": Input("a/policy", Content("1" * 40, ""), "")}
    for asked in ("a/policy", gone):
        pin(made := recipe(tmp_path / "run", f"policy.path={asked}"), known)
        assert made.policy.path == gone
    hub.refusals["a/policy"] = (503, "")
    commit = f"a/policy@{'2' * 40}"
    pin(made := recipe(tmp_path / "run", f"policy.path={commit}"), {})
    assert made.policy.path == commit, "other nodes may have it"
    assert f"{commit} is not checked" in caplog.text

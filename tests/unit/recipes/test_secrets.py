"""Secrets of a recipe reach workers and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.recipes.reading import load_recipe, to_yaml
from videorl.recipes.secrets import private_variables, public_runtime_env
from videorl.report import write_report
from videorl.run.folder import open_run
from videorl.run.sinks import open_sinks

SECRET = "hf_abcdefgh12345678"
VARIABLES = f'{{HF_TOKEN: {SECRET}, LOGIN: {SECRET}, OMP_NUM_THREADS: "2"}}'


def recipe(folder: Path, variables: str = VARIABLES) -> Recipe:
    overrides = [f"run_dir={folder}", f"rewards.0.runtime_env.env_vars={variables}"]
    return load_recipe("moving_shapes", overrides)


def test_a_run_folder_and_its_report_hold_no_secret_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_run(recipe(tmp_path)) as folder:
        write_report(folder.root)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"config.yaml", "report.html", "fingerprint"} <= {path.name for path in written}
    for path in written:
        assert SECRET not in path.read_text(), path
    # As it was begun, with another token, and from the folder itself.
    for again in (recipe(tmp_path), recipe(tmp_path, "{HF_TOKEN: renewed}")):
        with open_run(again):
            assert again.rewards[0].runtime_env["env_vars"]["HF_TOKEN"]
    monkeypatch.delenv("HF_TOKEN", raising=False)
    saved = load_recipe(str(folder.config))
    assert private_variables(saved.rewards[0].runtime_env) == {}
    monkeypatch.setenv("HF_TOKEN", SECRET)
    saved = load_recipe(str(folder.config))
    assert private_variables(saved.rewards[0].runtime_env) == {"HF_TOKEN": SECRET}
    with open_run(saved):
        pass


def test_only_what_a_process_needs_at_its_start_is_told_to_ray() -> None:
    variables = {
        "HF_TOKEN": SECRET,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": "/a",
        "RAY_AUTH_TOKEN": "b",
    }
    environment = {"pip": ["a"], "env_vars": variables}
    assert public_runtime_env(environment) == {
        "pip": ["a"],
        "env_vars": {"OMP_NUM_THREADS": "1", "PYTHONPATH": "/a"},
    }
    assert private_variables(environment) == {"HF_TOKEN": SECRET, "RAY_AUTH_TOKEN": "b"}
    assert public_runtime_env({"env_vars": {"HF_TOKEN": SECRET}}) == {}
    assert public_runtime_env({}) == private_variables({}) == {}


def test_settings_are_written_as_they_are_but_for_secrets(tmp_path: Path) -> None:
    text = to_yaml(recipe(tmp_path))
    assert "OMP_NUM_THREADS: '2'" in text
    assert 'LOGIN: ${oc.env:LOGIN,""}' in text


@pytest.mark.parametrize(
    "override",
    [
        f"rewards.7.runtime_env.env_vars.HF_TOKEN={SECRET}",
        f"reward.0.runtime_env.env_vars.HF_TOKEN={SECRET}",
        f"rewards.0.runtime_env.env_vars.HF_TOKEN=@{SECRET}",
        f"rewards.0.runtime_env.env_vars=[{SECRET}]",
        f"rewards.0.runtime_env.pip=['-i https://me:{SECRET}@example.com/simple']",
        f"rewards.0.path=https://me:{SECRET}@example.com/model",
    ],
)
def test_errors_do_not_quote_a_secret(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        load_recipe("moving_shapes", [f"run_dir={tmp_path}", override])
    shown = [str(one) for one in (raised.value, raised.value.__cause__) if one is not None]
    assert not any(SECRET in one for one in shown), shown
    assert "rewards" in str(raised.value)


def test_numbers_are_no_variables() -> None:
    with pytest.raises(
        ConfigError, match=r"rewards.0.runtime_env.env_vars must map names to texts"
    ):
        load_recipe("moving_shapes", ["rewards.0.runtime_env.env_vars.A=1"])


def test_trackers_get_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("sys.argv", ["videorl", SECRET])
    recipe = load_recipe(
        "moving_shapes",
        [
            f"run_dir={tmp_path / 'run'}",
            f"rewards.0.runtime_env.env_vars.HF_TOKEN={SECRET}",
            "metrics.trackers=[wandb]",
        ],
    )
    with open_run(recipe) as folder, open_sinks(recipe, folder) as sinks:
        print(SECRET)
        sinks.write(0, {"reward/total": 1.0})
    assert list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))
    assert list(tmp_path.glob("run/tensorboard/events*"))
    assert_nowhere(tmp_path)


def assert_nowhere(folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []

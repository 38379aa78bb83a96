"""What a shell completes, asked of bash itself where it can be."""

from __future__ import annotations

import importlib
import subprocess
from pathlib import Path

import pytest

from jobs import cli, command
from jobs.completion import SHELLS, settings
from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.recipes.choices import choices, owner_of
from videorl.recipes.kinds import FOLDERS
from videorl.recipes.reading import load_recipe

WITHOUT = "completion"
"""It is given the other commands, so it is started by `cli` alone."""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


def test_bash_completes_commands_recipes_settings_options_and_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "videorl.bash").write_text(script("bash", capsys))
    (tmp_path / "my_recipe.yaml").touch()
    (tmp_path / "my_notes.txt").touch()
    lines = {
        "videorl eval": "evaluate evaluate_reward",
        "videorl train moving_shapes_r": "moving_shapes_refl moving_shapes_rwr",
        "videorl train my_": "my_recipe.yaml",
        "videorl train_reward moving": "moving_shapes_reward",
        "videorl train moving_shapes seed=1 optimizer.le": "optimizer.learning_rate=",
        "videorl train moving_shapes objective.na": "objective.name=",
        "videorl train moving_shapes rewards.0.num_g": "rewards.0.num_gpus=",
        "videorl train_reward video_reward model.ba": "model.base=",
        "videorl runs --j": "--json",
        "videorl completion f": "fish",
    }
    asked = "\n".join(
        f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); _videorl; "
        'echo "${COMPREPLY[*]}"'
        for line in lines
    )
    # Outside of a real completion `compopt` complains, and changes nothing.
    ran = subprocess.run(
        ["bash", "-c", f"source ./videorl.bash\n{asked}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert dict(zip(lines, ran.stdout.splitlines(), strict=True)) == lines


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_knows_all_commands_and_nothing_hidden(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = script(shell, capsys)
    assert all(name in text for name in cli.COMMANDS)
    assert all(word in text for word in ("wan_1_3b_refl", "optimizer.learning_rate="))
    assert "--_parser" not in text


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != WITHOUT])
def test_every_command_gives_its_parser_without_running(name: str) -> None:
    found = command.parser_of(importlib.import_module(cli.COMMANDS[name][0]).main)
    assert found.prog == f"videorl {name}"


def test_settings_are_those_that_recipes_take() -> None:
    listed = settings("train")
    assert len(listed) == len(set(listed)) > 100
    assert "objective.beta" in listed
    assert "objective.enough" in listed
    for name in listed:
        section = name.partition(".")[0]
        choice = choices(Recipe).get(section)
        owner = owner_of(section, choice, name.partition(".")[2]) if choice else None
        chosen = [f"{section}.{choice.key}={owner}"] if choice and owner else []
        try:  # the value may be wrong, the name must not be
            load_recipe("moving_shapes", [*chosen, f"{name}=1"])
        except ConfigError as error:
            assert "unknown" not in str(error), name
    assert {"train", "train_reward", "train_latent_reward"} == set(FOLDERS)
    assert "labels.train" in settings("train_reward")


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["completion", "csh"])
    assert "choose from" in capsys.readouterr().err

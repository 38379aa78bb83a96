"""`videorl train`, whose runs go on without Ray where they are finished."""

from __future__ import annotations

from pathlib import Path

import pytest

import videorl
from jobs import command, train
from jobs.exit_codes import ExitCode
from tests.small_runs import SETTINGS
from videorl.errors import ConfigError


def test_a_run_that_learned_nothing_says_so_and_ends_with_another_exit_code(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {
        **{key: None if value == "null" else value for key, value in SETTINGS.items()},
        "rewards": [{"name": "moving_shapes"}],
        "policy.path": str(tiny_checkpoints["wan"]),
        "run_dir": str(tmp_path),
        "num_steps": 11,
        "selection.min_margin": 1e9,
        "evaluation.source": "",
    }
    summary = videorl.train("moving_shapes", **settings)
    assert summary["steps_learned"] == 0
    warned, at_the_end = (record.getMessage() for record in caplog.records)
    assert "steps 0 to 9 had nothing to learn from (margin_too_small: 20)" in warned
    assert "none of 11 steps had anything to learn from (no_pair_margin_too_small: 22)" in (
        at_the_end
    )
    assert train.main([str(tmp_path / "config.yaml")]) == ExitCode.LEARNED_NOTHING


def test_the_first_line_says_what_is_done_before_anything_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        train.main([str(tmp_path / "missing.yaml")])
    assert capsys.readouterr().err == f"[0 s] reading the recipe {tmp_path}/missing.yaml\n"


def test_a_change_must_name_a_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(train.main, ["moving_shapes", "--change", "objective.beta"]) == 2
    assert "--change needs key=value, got 'objective.beta'" in capsys.readouterr().err

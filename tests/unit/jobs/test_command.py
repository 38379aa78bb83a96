"""What all commands share: options, the way they end, and paths that outlive a submitted job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs import command
from videorl.config import RewardConfig
from videorl.errors import CheckpointError, ConfigError


def test_an_option_has_the_type_of_its_default_and_shows_it() -> None:
    parser = command.new_parser("videorl test", "First.\n\n    Second, as it stands.")
    command.add_option(parser, "--num", 3, "how many")
    command.add_option(parser, "--out", Path("here"), "where")
    command.add_option(parser, "--sides", [1.5, 2.0], "how long")
    options = parser.parse_args([])
    assert (options.num, options.out, options.sides) == (3, Path("here"), [1.5, 2.0])
    options = parser.parse_args(["--num", "4", "--out", "there", "--sides", "3"])
    assert (options.num, options.out, options.sides) == (4, Path("there"), [3.0])
    text = parser.format_help()
    assert "\n    Second, as it stands.\n" in text
    assert "how many (default: 3)" in text


def test_an_error_raised_on_purpose_is_one_line_and_others_are_not_hidden(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(argv: Sequence[str] | None) -> int:
        raise CheckpointError("nothing at x") if argv else KeyError("a bug")

    assert command.run(lambda argv: len(argv or ()), ["a", "b", "c"]) == 3
    assert command.run(fail, ["x"]) == 2
    assert capsys.readouterr().err == "error: nothing at x\n"
    with pytest.raises(KeyError):
        command.run(fail, [])


def test_what_the_system_refuses_and_ctrl_c_end_a_command_without_a_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(error: BaseException) -> int:
        def main(argv: Sequence[str] | None) -> int:
            raise error

        return command.run(main, [])

    assert fail(PermissionError(13, "Permission denied", "/locked/x")) == 2
    assert fail(OSError(28, "No space left on device")) == 75
    assert fail(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err.splitlines() == [
        "error: /locked/x: Permission denied",
        "error: No space left on device; this may pass: start the same command again",
        "interrupted",
    ]
    with pytest.raises(OSError, match="a bug"):
        fail(OSError("a bug"))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none/below"])
def test_a_folder_of_results_is_refused_before_the_work(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigError, match=r"--out must be a folder|--out: .* cannot be written"):
        command.output_folder(tmp_path / place)
    assert (tmp_path / "file").read_text() == "kept"
    assert list(command.output_folder(tmp_path / "new/below").iterdir()) == []


def test_a_file_of_results_is_refused_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out must be a file, .* is a folder"):
        command.output_file(tmp_path)
    with pytest.raises(ConfigError, match=r"--out: .* cannot be written"):
        command.output_file(Path("/proc/none/scores.parquet"))
    (tmp_path / "scores.parquet").write_text("kept")
    assert command.output_file(tmp_path / "scores.parquet").read_text() == "kept"


def test_a_stopped_command_says_that_it_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.stopped() == command.stopped(Path("runs/x")) == 130
    assert capsys.readouterr().err.splitlines() == [
        "stopped; the same command goes on",
        "stopped; the same command goes on with runs/x",
    ]


def test_results_of_a_submitted_job_outlive_its_working_directory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert command.lasting("runs/x") == Path.cwd() / "runs/x"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert command.lasting("/shared/x") == Path("/shared/x")
    assert not caplog.records
    assert command.lasting("runs/x") == Path.home() / "runs/x"
    assert f"results go to {Path.home() / 'runs/x'}" in caplog.text


def test_local_paths_of_rewards_become_absolute_and_hub_ids_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("weights")
    assert command.located(RewardConfig(name="a", path="weights")).path == f"{tmp_path}/weights"
    hub = RewardConfig(name="a", path="owner/model")
    assert command.located(hub) is hub
    without = RewardConfig(name="a")
    assert command.located(without) is without

"""The command line answers at once: it loads neither torch nor Ray before a job runs."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobs import cli, evaluate, sample, train
from videorl.errors import ArchiveError, ConfigError, VideorlError
from videorl.guidance.config import LatentRewardConfig, write_config

JOBS = sorted(
    path.stem for path in Path(cli.__file__).parent.glob("*.py") if path.stem != "__init__"
)
ROOT = Path(cli.__file__).resolve().parent.parent
HEAVY = {"torch", "ray", "diffusers", "transformers", "deepspeed"}


@pytest.mark.parametrize("job", JOBS)
def test_help_loads_nothing_heavy(job: str) -> None:
    program = f"""
import runpy, sys
sys.argv = ["{job}", "--help"]
try:
    runpy.run_module("jobs.{job}", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0, stop.code
print("loaded:", *sorted({HEAVY} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage:")
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_every_command_is_a_job() -> None:
    assert set(cli.COMMANDS) <= set(JOBS)


def test_arguments_after_the_command_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[list[str]] = []

    def command(argv: list[str]) -> int:
        received.append(argv)
        return 3

    monkeypatch.setitem(cli.COMMANDS, "doctor", (command, ""))
    assert cli.main(["doctor", "--help", "seed=1"]) == 3
    assert received == [["--help", "seed=1"]]


def test_an_error_of_ours_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(argv: list[str]) -> int:
        raise ConfigError("num_steps must be >= 1, got 0")

    monkeypatch.setitem(cli.COMMANDS, "train", (command, ""))
    assert cli.main(["train"]) == 2
    assert capsys.readouterr().err == "error: num_steps must be >= 1, got 0\n"


@pytest.mark.parametrize("argv", [[], ["fly"]])
def test_unknown_command_exits_with_usage(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("usage: videorl")


@pytest.mark.parametrize("job", [evaluate, train])
def test_settings_may_follow_options(job: ModuleType) -> None:
    with pytest.raises(VideorlError):  # of the job, not argparse's SystemExit
        job.main(["no_such_place", "--address", "ray://head:10001", "num_steps=2"])


def test_requests_for_guidance_are_refused_before_any_model_loads(tmp_path: Path) -> None:
    shape = (12, 5, 8, 8)
    write_config(
        tmp_path,
        LatentRewardConfig("wan", "x", "", 1, "mean", "head", ("sharp", "steady"), shape),
    )
    folder, recipe = ["--latent-reward", str(tmp_path)], ["--set", "policy.path=/nowhere"]
    for arguments, message in (
        ([*folder, "--guide", "loud=1"], r"unknown dimension 'loud'.* scores sharp, steady"),
        (["--guide", "sharp=1"], "go together"),
        (folder, "go together"),
        (["--max-factor", "3"], "--max-factor is for guidance"),
        ([*folder, "--guide", "sharp=1", "--max-factor", "0"], "--max-factor must be > 0, got 0"),
        (["--num", "0"], "--num must be >= 1, got 0"),
        (
            [*folder, "--guide", "sharp=1", "--recipe", "cogvideox_2b"],
            r"is a latent reward for policy\.family=wan \(x\), but the recipe has cogvideox",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            sample.main(["a small red circle moving left", *arguments, *recipe])


def test_archives_are_refused_before_a_run_begins(tmp_path: Path) -> None:
    (tmp_path / "of_cogvideox/archive/pairs").mkdir(parents=True)
    (tmp_path / "of_cogvideox/config.yaml").write_text("policy: {family: cogvideox}\n")
    for archive, message in (
        ("nowhere", "there is no preference archive at"),
        ("of_cogvideox/archive", r"policy\.family=cogvideox.*but this recipe has .*=wan"),
    ):
        settings = [f"offline.archive={tmp_path / archive}", f"run_dir={tmp_path / 'run'}"]
        with pytest.raises(ArchiveError, match=message):
            train.main(["moving_shapes", *settings])
        assert not (tmp_path / "run").exists(), "neither a run folder nor a cluster was made"

"""The command line answers at once: it loads neither torch nor Ray before a job runs."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jobs import cli, evaluate, sample, train
from tests.small_runs import SETTINGS
from videorl.errors import ArchiveError, ConfigError, PromptError, VideorlError
from videorl.guidance.config import LatentRewardConfig, write_config

ROOT = Path(cli.__file__).resolve().parent.parent
RUNNABLE = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "jobs").rglob("*.py"))
    if 'if __name__ == "__main__":' in path.read_text() and path.stem != "completion"
]
HELPS = [("jobs.cli", name) for name in cli.COMMANDS] + [(module,) for module in RUNNABLE]


@pytest.mark.parametrize("command", HELPS, ids=" ".join)
def test_help_loads_nothing_heavy(command: tuple[str, ...]) -> None:
    module, *words = command
    program = f"""
import runpy, sys
sys.argv = {["", *words, "--help"]}
try:
    runpy.run_module("{module}", run_name="__main__")
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {{"torch", "ray", "diffusers", "transformers", "deepspeed"}}
print("loaded:", *sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    name = f"videorl {words[0]}" if words else rf"(videorl|python -m {module})"
    assert re.match(rf"usage: {name}\b", done.stdout)
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_every_command_is_a_module_of_its_own() -> None:
    modules = [module for module, _ in cli.COMMANDS.values()]
    assert set(modules) - set(RUNNABLE) == {"jobs.completion"}
    assert len(set(modules)) == len(modules)


def test_what_completes_all_commands_says_how_it_is_started() -> None:
    command = [sys.executable, "-m", "jobs.completion", "bash"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "started as `videorl completion SHELL`" in done.stderr


def test_arguments_after_the_command_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[list[str]] = []

    def main(argv: list[str]) -> int:
        received.append(argv)
        return 3

    monkeypatch.setattr("jobs.doctor.main", main)
    assert cli.main(["doctor", "--help", "seed=1"]) == 3
    assert received == [["--help", "seed=1"]]


def test_an_error_of_ours_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["scale", "no_such_run"]) == 2
    shown = capsys.readouterr().err
    assert re.fullmatch(r"error: .*no_such_run is not the folder of a run: .*\n", shown)


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


def test_prompts_to_sample_come_from_files_of_any_kind(
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "prompts.json").write_text(json.dumps(["a cat", "a dog " * 20]))
    settings = {**SETTINGS, "policy.path": tiny_checkpoints["wan"]}
    changes = ["--set", *(f"{key}={value}" for key, value in settings.items())]
    given = ["--prompts", str(tmp_path / "prompts.json"), "--out", str(tmp_path / "out")]
    assert sample.main(["a red circle", *given, *changes]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{tmp_path}/out/000-00.mp4  a red circle",
        f"{tmp_path}/out/001-00.mp4  a cat",
    ]
    assert "left out: prompt 'a dog a dog" in caplog.text
    with pytest.raises(PromptError, match="has 41 tokens"):
        sample.main(["a dog " * 20, *changes])
    with pytest.raises(ConfigError, match=r"is a file; give the prompts in it by --prompts"):
        sample.main([str(tmp_path / "prompts.json"), *changes])
    with pytest.raises(ConfigError, match="there is no prompt: give texts, or --prompts FILE"):
        sample.main([*changes])


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

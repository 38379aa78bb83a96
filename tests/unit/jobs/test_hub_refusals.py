"""A hub that refuses or does not answer ends every command with one line, before long work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from jobs import command, evaluate_reward, fetch, plan, sample, score, train
from jobs.exit_codes import ExitCode
from jobs.recipe_checks import pin_and_check
from tests.hub_server import Hub, serve
from videorl.recipes.reading import load_recipe

Main = Callable[[Sequence[str] | None], int]

ANSWERS = {
    "a/unknown": "neither a folder here nor a repository that the hub shows to this user",
    "a/known@v9": "a/known has no revision 'v9': give a branch, tag or commit",
    f"a/known@{'0' * 40}": f"a/known has no revision '{'0' * 40}'",
    "a/gated": "a/gated is gated, and this user may not read it: ask for access",
    "a/slow": "the hub does not answer",
}
"""Hub id -> what is said of it."""


@pytest.fixture(params=ANSWERS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def hub(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that never answers for one repository, for which clients do not wait for long."""
    if name == "a/slow":
        monkeypatch.setattr("videorl.files.hub._TIMEOUT_S", 0.2)
    with serve(monkeypatch, tmp_path / "cache") as server:
        server.add("a/known", {"model_index.json": "{}"})
        server.add("a/gated", {"model_index.json": "{}"})
        server.gated.add("a/gated")
        server.hanging["a/slow"] = never = threading.Event()
        yield server
        never.set()


def refused(main: Main, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused; return its last line."""
    assert command.run(main, words) == ExitCode.REFUSED
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_a_policy(name: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy, run_dir = f"policy.path={name}", f"run_dir={tmp_path / 'run'}"
    commands: list[tuple[Main, list[str]]] = [
        (train.main, ["moving_shapes", policy, run_dir]),
        (sample.main, ["a red circle", "--out", str(tmp_path / "out"), "--set", policy]),
        (fetch.main, ["moving_shapes", policy]),
        (fetch.main, ["--policy", name]),
        (plan.main, ["moving_shapes", policy]),
    ]
    for main, words in commands:
        said = refused(main, words, capsys)
        assert said.startswith("error: "), said
        assert ANSWERS[name] in said, (main.__module__, said)
    assert not (tmp_path / "run/config.yaml").exists()
    (found,) = pin_and_check(load_recipe("moving_shapes", [policy]))
    assert found.status == "broken"
    assert ANSWERS[name] in found.found


def test_a_reward_model(
    name: str, hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/a.mp4").write_bytes(b"not looked at")
    (tmp_path / "clips/a.txt").write_text("a bear")
    out = tmp_path / "scores.parquet"
    reward = f"vision_reward={name}"
    words = [str(tmp_path / "clips"), "--reward", reward, "--out", str(out)]
    rows = "path_A,path_B,prompt,VQ,MQ,TA,Overall\na.mp4,a.mp4,a bear,A,A,A,A\n"
    (tmp_path / "clips/videogen-rewardbench.csv").write_text(rows)
    judged = ["--benchmark", "videogen_rewardbench", "--data", str(tmp_path / "clips")]
    judged += ["--model", "moving_shapes", "--model", reward, "--out", str(tmp_path / "judged")]
    judged += [word for dimension in ("VQ", "MQ", "TA") for word in ("--map", f"{dimension}=total")]
    commands: list[tuple[Main, list[str]]] = [
        (score.main, words),
        (fetch.main, ["--reward", reward]),
        (evaluate_reward.main, judged),  # before it scores with its first model
    ]
    for main, given in commands:
        said = refused(main, given, capsys)
        assert "rewards.0.path: " in said
        assert ANSWERS[name] in said, (main.__module__, said)
    assert not out.exists()

"""A whole run in an S3 store: begun, killed, resumed elsewhere, read, and equal to a local one."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs import audit, compare, export, runs
from tests.ray.whole_runs import STEPS, assert_same_run, losses_of
from tests.s3_server import BUCKET, Way, environment
from tests.stored_run import disturbed, leave_for_good, recipe_of
from videorl import one_process
from videorl.config import Recipe
from videorl.errors import RunFolderError, StoreLostError
from videorl.run.folder import open_run
from videorl.storage.copies import copy_of
from videorl.storage.preparing import open_place

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def local(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, without a fault, in a folder."""
    recipe = recipe_of(tmp_path_factory.mktemp("local") / "first", tiny_checkpoints["wan"])
    with open_run(recipe) as folder:
        assert one_process.run(recipe, folder, lambda: False)
    return folder.root


def go(recipe: Recipe, *, from_scratch: bool = False, take_over: bool = False) -> Path:
    """Start the run, or go on with it, to its end."""
    with open_run(recipe, from_scratch=from_scratch, take_over=take_over) as folder:
        assert one_process.run(recipe, folder, lambda: False)
    return folder.root


def test_a_run_is_killed_and_goes_on_elsewhere_as_if_nothing_had_been(
    way: Way,
    s3: str,
    local: Path,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [sys.executable, "-m", "tests.stored_run", s3, str(tiny_checkpoints["wan"]), "3"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(command, env=env, cwd=tmp_path).returncode == -9
    stored = open_place(s3).list()
    assert "checkpoints/step-000002/state.json" in stored
    assert "summary.json" not in stored
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "another machine"))
    recipe = recipe_of(s3, tiny_checkpoints["wan"])
    assert_same_run(go(recipe, take_over=True), local)
    assert recipe.run_dir == s3, "the recipe is as it was"
    assert not list(tmp_path.glob("run*")), "nothing lies where nobody looks for it"

    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "somebody's laptop"))
    monkeypatch.chdir(tmp_path)
    for name, value in environment(way.port, "reader").items():
        monkeypatch.setenv(name, value)
    assert audit.main([s3]) == 0
    assert export.main([s3, "--format", "diffusers", "--out", "lora.safetensors"]) == 0
    assert runs.main([s3.rpartition("/")[0]]) == 0
    printed = capsys.readouterr().out
    assert f"{STEPS}/{STEPS}" in printed
    assert "finished" in printed
    assert compare.main([s3, str(local), "--out", "both.html"]) == 0
    assert (tmp_path / "lora.safetensors").exists()
    reading = copy_of(s3, "reading")
    assert "<html" in (reading / "report.html").read_text()
    assert list(reading.glob("tensorboard/events*"))


@pytest.mark.parametrize("away_s", [0.0, pytest.param(120.0, marks=pytest.mark.long)])
def test_a_store_that_was_away_for_a_while_costs_nothing_but_time(
    away_s: float,
    way: Way,
    s3: str,
    local: Path,
    tiny_checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Away from step 1 on, until a checkpoint waits and has said so, and for `away_s` more."""
    caplog.set_level(logging.WARNING)

    def come_back() -> None:
        end = time.monotonic() + 120
        while "cannot be written to" not in caplog.text and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(away_s)
        way.mode = "pass"

    def leave() -> None:
        way.mode = "busy"
        way.interrupt()
        threading.Thread(target=come_back, daemon=True).start()

    disturbed(monkeypatch, {1: leave})
    assert_same_run(go(recipe_of(s3, tiny_checkpoints["wan"])), local)
    assert "cannot be written to" in caplog.text
    assert "could not be written" not in caplog.text, "no checkpoint was given up"
    assert "answers again" in caplog.text


def test_a_store_that_stays_away_ends_the_run_with_everything_kept_here(
    way: Way,
    s3: str,
    local: Path,
    tiny_checkpoints: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)

    disturbed(monkeypatch, {2: lambda: leave_for_good(way, s3)})
    recipe = recipe_of(s3, tiny_checkpoints["wan"])
    with pytest.raises(StoreLostError, match="start the same command again on this machine"):
        go(recipe)
    way.mode = "pass"
    root = copy_of(s3, "working")
    assert len(losses_of(root)) == 4, "it ended where the next checkpoint was due"
    assert "checkpoints/step-000004/state.json" not in open_place(s3).list()
    disturbed(monkeypatch, {})
    assert_same_run(go(recipe_of(s3, tiny_checkpoints["wan"])), local)
    assert "stored what was kept on this machine: step-000004" in caplog.text
    assert len(losses_of(root)) == STEPS


def test_from_scratch_moves_what_is_stored_aside(
    s3: str, tiny_checkpoints: dict[str, Path]
) -> None:
    recipe = recipe_of(s3, tiny_checkpoints["wan"], num_steps=2)
    go(recipe)
    before = set(open_place(s3).list())
    recipe.seed += 1
    with pytest.raises(RunFolderError, match="seed"):
        go(recipe)
    go(recipe, from_scratch=True)
    parent = open_place(s3.rpartition("/")[0])
    aside = {name.partition("/")[2] for name in parent.list() if name.startswith("first.old-")}
    assert aside == before
    assert "checkpoints/step-000002/state.json" in open_place(s3).list()


def test_what_is_wrong_with_a_store_is_said_before_the_work(
    way: Way, tiny_checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(uri: str) -> None:
        with open_run(recipe_of(uri, tiny_checkpoints["wan"], checkpoint__patience_s=1)):
            pytest.fail("it must not begin")

    with pytest.raises(RunFolderError, match="cannot use s3://nowhere/first"):
        start("s3://nowhere/first")
    for name, value in environment(way.port, "reader").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunFolderError, match="ACCESS_DENIED"):
        start(f"s3://{BUCKET}/first")
    way.mode = "refuse"
    way.interrupt()
    began = time.monotonic()
    with pytest.raises(StoreLostError, match="cannot use s3://"):
        start(f"s3://{BUCKET}/first")
    assert time.monotonic() - began < 300, "not for as long as a run waits by default"

"""All runs of a folder, followed while they come, go and go on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.watched_runs import CONFIG
from videorl.run.lock import hold
from videorl.run.sinks import JsonlSink
from videorl.watch import all_runs
from videorl.watch.all_runs import RunsReader


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two runs of two steps; whoever asks gets what is there now."""
    monkeypatch.setattr(all_runs, "FRESH_S", -1.0)
    for name in ("a", "deep/b"):
        add_run(tmp_path / name)
    return tmp_path


def add_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(CONFIG))
    for step in range(2):
        JsonlSink(folder / "metrics.jsonl").write(step, {"reward/total": float(step)})


def test_runs_come_go_and_go_on(root: Path) -> None:
    reader = RunsReader(root)
    found = reader.read()
    assert {name: run.step for name, run in found.runs.items()} == {"a": 2, "deep/b": 2}
    assert found.curves["a"] == [(0, 0.0), (1, 1.0)]
    JsonlSink(root / "a/metrics.jsonl").write(2, {"reward/total": 5.0})
    add_run(root / "c")
    (root / "deep/b").rename(root / ".gone")
    found = reader.read()
    assert {name: run.step for name, run in found.runs.items()} == {"a": 3, "c": 2}
    assert found.curves["a"][-1] == (2, 5.0)
    with hold(root / "a"):
        assert reader.read().runs["a"].state == "running"
    assert reader.read().runs["a"].state == "stopped"


def test_what_did_not_change_is_not_read_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = RunsReader(root)
    before = reader.read()
    for name in ("overview", "read_metrics"):
        monkeypatch.setattr(all_runs, name, None)
    assert reader.read() == before


def test_only_the_newest_runs_have_curves(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_runs, "MOST_CURVES", 1)
    os.utime(root / "a/metrics.jsonl", (1e9, 1e9))
    assert list(RunsReader(root).read().curves) == ["deep/b"]


def test_a_name_that_is_no_text_can_be_shown(root: Path) -> None:
    add_run(Path(os.fsdecode(os.fsencode(root) + b"/\xff")))
    assert "\ufffd" in RunsReader(root).read().runs

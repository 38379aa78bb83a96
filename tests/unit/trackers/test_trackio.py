"""Trackio, with its local database."""

from __future__ import annotations

import importlib
import json
import sqlite3
from pathlib import Path

import pytest

from tests.tracked import fixed_videos, tracked
from videorl.trackers.trackio_tracker import TrackioTracker

trackio = pytest.importorskip(
    "trackio",
    reason="trackio needs pillow < 13, and constraints.txt pins 13: `make test-trackers` installs "
    "it beside",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Trackio keeps its data, as `TRACKIO_DIR` would say before it is imported."""
    utils = importlib.import_module("trackio.utils")
    storage = importlib.import_module("trackio.sqlite_storage")
    for module in (utils, storage, trackio):
        monkeypatch.setattr(module, "TRACKIO_DIR", tmp_path / "trackio", raising=False)
    monkeypatch.setattr(utils, "MEDIA_DIR", tmp_path / "trackio/media")
    for module in list(vars(trackio.media).values()):
        if hasattr(module, "MEDIA_DIR"):
            monkeypatch.setattr(module, "MEDIA_DIR", tmp_path / "trackio/media")
    return tmp_path / "trackio"


def rows(home: Path) -> list[tuple[str, int, dict[str, object]]]:
    with sqlite3.connect(home / "project.db") as database:
        found = database.execute("select run_name, step, metrics from metrics order by id")
        return [(name, step, json.loads(metrics)) for name, step, metrics in found]


def test_it_has_config_numbers_videos_and_summary_under_the_id(home: Path, tmp_path: Path) -> None:
    for first in (0, 2):  # the second time the run goes on
        tracker = TrackioTracker(tracked(tmp_path))
        tracker.config({"seed": 3})
        tracker.metrics(first, {"reward/total": 0.5})
        tracker.videos(first, fixed_videos(tmp_path, first))
        if first:
            tracker.summary({"evaluation.win_rate": 0.7})
        tracker.close()
    told = rows(home)
    assert {name for name, _, _ in told} == {"an-id"}
    assert [step for _, step, _ in told] == [0, 0, 2, 2, 2]
    assert told[0][2] == {"reward/total": 0.5}
    videos = told[1][2]
    assert videos["fixed_prompts/total"] == 0.25
    shown = videos["fixed_prompts/001"]
    assert isinstance(shown, dict)
    assert shown["caption"] == "prompt 1 (seed 8, total +0.500)"
    assert (home / "media" / shown["file_path"]).stat().st_size > 500
    assert told[-1][2] == {"summary/evaluation.win_rate": 0.7}
    with sqlite3.connect(home / "project.db") as database:
        (config,) = database.execute("select config from configs").fetchone()
        found = database.execute("select distinct run_id from metrics").fetchall()
    assert len(found) == 1, "Trackio takes both parts for one run"
    assert json.loads(config)["seed"] == 3
    assert json.loads(config)["run_name"] == "a run"

"""Weights & Biases: what it is told lies in its own offline files, and nothing stops a run."""

from __future__ import annotations

import logging
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from wandb.proto import wandb_internal_pb2 as messages

from tests.tracked import fixed_videos, tracked
from videorl.errors import ConfigError
from videorl.trackers import wandb_tracker
from videorl.trackers.wandb_tracker import WandbTracker


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # it reads its environment once in a process


def recorded(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/*.wandb"))


def records(path: Path) -> list[Any]:
    """Return what W&B wrote down, once its own process has written the end."""
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        found = list(_records(path))
        if any(row.HasField("exit") for row in found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"{path} was not closed")


def _records(path: Path) -> Iterator[Any]:
    """Yield what W&B wrote down for `wandb sync`: a LevelDB log behind seven bytes."""
    file, place, content = path.read_bytes(), 7, b""
    assert not file or file.startswith(b":W&B")
    while place + 7 <= len(file):
        if (left := 32768 - place % 32768) < 7:  # no header is cut in two
            place += left
            continue
        length, kind = struct.unpack_from("<HB", file, place + 4)
        if place + 7 + length > len(file):
            return  # not all of it is written yet
        content += file[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record: Any = messages.Record()  # pyright: ignore[reportAttributeAccessIssue]
            record.ParseFromString(content)
            yield record
            content = b""


def test_offline_it_has_config_numbers_videos_and_summary_under_the_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WandbTracker(tracked(tmp_path))
    tracker.config({"seed": 3, "policy.family": "wan"})
    tracker.metrics(0, {"reward/total": 0.5})
    tracker.metrics(1, {"reward/total": 0.75})
    tracker.metrics(2, {"reward/total": 1.0})
    tracker.videos(1, fixed_videos(tmp_path))
    tracker.videos(0, fixed_videos(tmp_path))
    tracker.summary({"evaluation.win_rate": 0.7})
    tracker.close()
    (file,) = recorded(tmp_path)
    rows = records(file)
    runs = [row.run for row in rows if row.HasField("run")]
    assert {run.run_id for run in runs} == {"an-id"}
    assert runs[0].project == "project"
    text = str(rows)
    assert "policy.family" in text
    assert "evaluation.win_rate" in text
    history = [
        {item.key or "/".join(item.nested_key): item.value_json for item in row.history.item}
        for row in rows
        if row.HasField("history")
    ]
    assert [row["step"] for row in history] == ["0", "1", "2", "1", "0"], "in the order of telling"
    numbers = [float(row["reward/total"]) for row in history if "reward/total" in row]
    assert numbers == [0.5, 0.75, 1.0]
    assert float(history[3]["fixed_prompts/total"]) == 0.25
    assert history[3]["fixed_prompts/000/_type"] == '"video-file"'
    assert len(list(file.parent.glob("files/media/videos/fixed_prompts/*.mp4"))) == 4


def test_without_a_login_all_is_kept_for_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        tracker = WandbTracker(tracked(tmp_path))
    tracker.metrics(0, {"reward/total": 1.0})
    tracker.close()
    assert "Weights & Biases cannot be used (No API key configured" in caplog.text
    assert "`wandb sync` uploads it" in caplog.text
    assert recorded(tmp_path)


def test_nobody_is_asked_for_a_key_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The thread of the tracker would wait for the answer, and hold the terminal of the run."""
    asked = list[object]()

    def ask(*choices: object, **_: object) -> str:
        asked.append(choices)
        raise TimeoutError

    monkeypatch.setattr("wandb.errors.term.can_use_terminput", lambda: True)
    monkeypatch.setattr("wandb.util.prompt_choices", ask)
    with caplog.at_level(logging.WARNING):
        WandbTracker(tracked(tmp_path)).close()
    assert not asked
    assert "No API key configured" in caplog.text
    assert recorded(tmp_path)


def test_a_service_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_tracker, "_INIT_TIMEOUT_S", 2)
    tracker = WandbTracker(tracked(tmp_path))
    tracker.metrics(0, {"reward/total": 1.0})
    tracker.close()
    assert "`wandb sync` uploads it" in caplog.text
    assert recorded(tmp_path)


def test_what_is_wrong_with_the_package_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: str | None) -> str:
        for name in [name for name in sys.modules if name.partition(".")[0] == "wandb"]:
            monkeypatch.delitem(sys.modules, name)
        packages = tmp_path / str(len(list(tmp_path.iterdir())))
        (packages / "wandb").mkdir(parents=True)
        if source is not None:
            (packages / "wandb/__init__.py").write_text(source)
        monkeypatch.setattr(sys, "path", [str(packages), *_without_wandb()])
        with pytest.raises(ConfigError) as raised:
            wandb_tracker.check()
        return str(raised.value)

    assert "a folder named wandb (" in fail(None)
    assert fail("import nowhere_to_be_found") == (
        "wandb cannot be imported: it needs nowhere_to_be_found"
    )
    assert "cannot be imported: no GPU" in fail("raise ImportError('no GPU')")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"videorl\[wandb\]"):
        wandb_tracker.check()


def _without_wandb() -> list[str]:
    return [folder for folder in sys.path if not (Path(folder) / "wandb").is_dir()]

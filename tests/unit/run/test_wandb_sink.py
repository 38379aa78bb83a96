"""Weights & Biases never stops a run."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import wandb

from videorl.errors import ConfigError
from videorl.run import wandb_sink
from videorl.run.wandb_sink import WandbSink, run_id


@pytest.fixture(autouse=True)
def nobody_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    wandb.teardown()  # it reads its environment once in a process


def recorded(folder: Path) -> list[Path]:
    return list(folder.glob("wandb/offline-run-*/*.wandb"))


def test_without_a_login_numbers_are_kept_for_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        sink = WandbSink(tmp_path, "project", "a/b #2: c")
    sink.write(0, {"reward/total": 1.0})
    sink.close()
    assert "Weights & Biases cannot be used (No API key configured" in caplog.text
    assert "`wandb sync` uploads them" in caplog.text
    assert recorded(tmp_path)


def test_a_service_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb_sink, "_INIT_TIMEOUT_S", 2)
    sink = WandbSink(tmp_path, "project", "name")
    sink.write(0, {"reward/total": 1.0})
    sink.close()
    assert "`wandb sync` uploads them" in caplog.text
    assert recorded(tmp_path)


def test_ids_are_taken_by_the_service_and_differ_where_names_do() -> None:
    assert run_id("moving_shapes-2.1") == "moving_shapes-2.1"
    odd = ["a b", "a/b", "a:b", "ä", "", "#", "?", "n" * 200, "n" * 201]
    ids = [run_id(name) for name in odd]
    assert len(set(ids)) == len(odd)
    assert all(0 < len(found) <= 64 and not set(found) & set(":;,#?/' ") for found in ids)


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
            WandbSink(tmp_path, "project", "name")
        return str(raised.value)

    assert "a folder named wandb (" in fail(None)
    assert fail("import nowhere_to_be_found") == (
        "wandb cannot be imported: it needs nowhere_to_be_found"
    )
    assert "cannot be imported: no GPU" in fail("raise ImportError('no GPU')")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"videorl\[wandb\]"):
        WandbSink(tmp_path, "project", "name")


def _without_wandb() -> list[str]:
    return [folder for folder in sys.path if not (Path(folder) / "wandb").is_dir()]

"""What `videorl watch` says before it serves anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from jobs import cli


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["watch", str(tmp_path / "none")]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_library_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "videorl.pages.frame", raising=False)
    monkeypatch.setitem(sys.modules, "nicegui", None)
    assert cli.main(["watch"]) == 2
    said = capsys.readouterr().err
    assert "needs nicegui, which is not installed: pip install 'videorl[watch]'" in said

"""What the script of the documentation's pictures says where it cannot make them."""

from pathlib import Path

import pytest

from jobs import command
from jobs.exit_codes import ExitCode
from jobs.workshop import screenshots


def test_no_browser_is_one_line_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(screenshots, "CHROMIUM", tmp_path / "chromium")
    words = [str(tmp_path), "--out", str(tmp_path / "out")]
    assert command.run(screenshots.main, words) == ExitCode.REFUSED
    said = capsys.readouterr().err
    assert said == f"error: {tmp_path / 'chromium'} is missing: apt-get install chromium\n"
    assert not (tmp_path / "out").exists()

"""The examples of the documentation run as they are, in a folder of their own."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "docs/examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(
    example: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(example.parent)
    runpy.run_path(str(example), run_name="__main__")
    assert capsys.readouterr().out, "it says what it did"
    (folder,) = (tmp_path / "runs").iterdir()
    assert any((folder / "aligned").iterdir())
    assert len(example.read_text().splitlines()) <= 60, "an example is read at a glance"

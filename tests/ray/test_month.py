"""The month in small, in seconds: the long form is `python -m jobs.bench.month`."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.bench.month import is_clean, most_tables, show
from jobs.bench.month_run import BACK, archive_month, month
from videorl.data.archive import committed_steps
from videorl.data.archive_layout import read_layout

pytestmark = pytest.mark.ray


def test_an_archive_of_many_lives_stays_small(tmp_path: Path) -> None:
    """Two lives; the first is cut off in the middle of what the second does again."""
    found = archive_month(tmp_path, 112, lives=2, look_every=28, keep_gb=0.004)
    assert is_clean(found)
    assert found["steps made"] == 112 + BACK
    assert [len(span.steps) for span in read_layout(tmp_path / "archive").spans] == [100, *[1] * 12]
    assert found["removed"]["videos"] == 16 * found["removed"]["end"] > 0
    media = [moment["media_bytes"] for moment in found["moments"]]
    superseded = BACK * 16 * 20_000  # videos of the steps that are done again, until a checkpoint
    assert max(media) <= 0.004e9 + superseded
    assert not (tmp_path / "superseded").exists()


def test_the_bound_on_files_is_that_of_the_documentation() -> None:
    text = (Path(__file__).parents[2] / "docs/reliability.md").read_text()
    assert most_tables(5000) == 948
    assert "948" in text


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_a_month_of_two_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = month(tmp_path / "run", 20, lives=2, fault_every_s=5.0, look_every=10, keep_gb=0.0002)
    show(found)
    assert "verdict: as it should be" in capsys.readouterr().out
    assert found["steps made"] == 20 + BACK
    assert committed_steps(tmp_path / "run/archive") == list(range(20))
    first, last = found["moments"][0], found["moments"][-1]
    assert last["classes"] == first["classes"], "each actor class is exported once"

"""What fails once more alone fails the whole; that it failed at first is told in any case."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import everything

FLAKY = """
from pathlib import Path
def test_flaky():
    tries = Path(__file__).with_name("tries")
    tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
    assert len(tries.read_text()) >= {passes_at}
"""


@pytest.mark.parametrize(
    ("passes_at", "said"),
    [(1, None), (2, "passed alone"), (3, "again")],
    ids=["good", "2nd", "bad"],
)
def test_what_fails_is_run_once_more(
    passes_at: int, said: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in ("unit", "ray", "chaos"):
        (tmp_path / "tests" / folder).mkdir(parents=True)
        (tmp_path / f"tests/{folder}/test_{folder}.py").write_text("def test_good(): pass\n")
    (tmp_path / "tests/ray/test_flaky.py").write_text(FLAKY.format(passes_at=passes_at))
    assert everything.main(tmp_path, tmp_path) == (1 if passes_at == 3 else 0)
    tries = (tmp_path / "tests/ray/tries").read_text()
    assert len(tries) == min(passes_at, 2)
    last = capfd.readouterr().out.splitlines()[-1]
    expected = f"FAILED beside others, {said}: tests/ray/test_flaky.py::test_flaky"
    assert (last == expected) == (said is not None)

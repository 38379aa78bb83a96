"""What `videorl watch` says before it serves anything, and that what it looks for is written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from actors.pool.metrics import PoolSizesSink
from actors.pool.pool import ElasticPool
from actors.pool.state import Counts, picture
from jobs import cli
from tests.watched_runs import make_run
from videorl.evaluation.fixed_prompts import FixedPrompts
from videorl.objectives.objective import NOT_FINITE, SKIPPED
from videorl.pages.watch.curves import _thinned
from videorl.policies.compiling import GENERATORS_UNCOMPILED
from videorl.report.contents import RunContents
from videorl.run.sinks import FanOut, RunSink
from videorl.step_record import counts
from videorl.watch.timeline import FAULTS, SIZES, SO_FAR, timeline


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


def test_the_index_is_finished_with_its_files_before_the_process_ends(tmp_path: Path) -> None:
    """A thread inside DuckDB as Python ends would abort the process."""
    archive = make_run(tmp_path / "run", 1, num_frames=2)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from videorl.watch.index import Index\n"
        "from videorl.pages.watch.watched import WatchedRun\n"
        "def refresh(self, most):\n"
        "    if most > 4: time.sleep(0.5); print('read', flush=True)\n"
        "    return 9\n"
        "Index.refresh = refresh\n"
        "WatchedRun(Path(sys.argv[1]), '/files', 'run').refresh()\n"
    )
    words = [sys.executable, "-c", code, str(archive)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "read\n"


class Rows(list[dict[str, Any]]):
    """A metric sink."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        self.append({"step": step, **metrics})


def test_all_faults_that_are_looked_for_are_written_by_the_run() -> None:
    """By its own writers: of pools, of rounds and of the learner."""
    rows = Rows()
    tracker: Any = SimpleNamespace(name="wandb", num_lost=3, write=lambda *_: None)
    told = FanOut([cast(RunSink, rows)], [tracker])
    fixed = FixedPrompts(Path(), [], 1, *[cast(Any, None)] * 3)
    fixed.behind.lose(2)
    for step, (repeated, uncompiled) in enumerate([(0, 0), (2, 5), (2, 5), (3, 1)]):
        stats = picture([], 0, Counts(0, step, step // 2, step // 3, repeated))
        pool = cast(ElasticPool, SimpleNamespace(stats=lambda stats=stats: stats))
        faults = {GENERATORS_UNCOMPILED: lambda count=uncompiled: count}
        PoolSizesSink(told, {"generator": pool}, faults).write(step, {})
    rows[2] |= counts(["group_lost", "margin_too_small"], [("score_not_finite", 2)], [])
    rows[3] |= {NOT_FINITE: 1.0, SKIPPED: 1.0, **fixed.metrics()}
    found = timeline(RunContents("a run", 4, "", rows, {}, []))
    assert found.faults == {
        # The last one is of a driver that was started again.
        "generator/uncompiled": [(1, 5.0), (3, 1.0)],
        "pool/generator_repeated_for_speed": [(1, 2.0), (3, 1.0)],
        "pool/generator_retried": [(1, 1.0), (2, 1.0), (3, 1.0)],
        "pool/generator_replaced": [(2, 1.0)],
        "pool/generator_fenced": [(3, 1.0)],
        "tracker/wandb_lost": [(0, 3.0)],
        "fixed_prompts/lost": [(3, 2.0)],
        "groups/dropped_group_lost": [(2, 1.0)],
        "candidates/dropped_score_not_finite": [(2, 2.0)],
        "learn/not_finite": [(3, 1.0)],
        "optimizer/skipped": [(3, 1.0)],
    }
    assert all(any(part in name for name in found.faults) for part in FAULTS)
    written = {name for row in rows for name in row}
    assert all(any(name.endswith(end) for name in written) for end in (*SIZES, *SO_FAR))


def test_curves_of_long_runs_are_thinned_before_they_are_smoothed() -> None:
    """2500 steps in parts of three: the means, at the step in the middle; lost values count not."""
    rows = [{"step": step, "a": float(step)} for step in range(2500)]
    rows[3]["a"] = None  # pyright: ignore[reportArgumentType]
    thinned = _thinned(RunContents("a run", 4, "", rows, {}, []).series("a"))
    assert thinned[:2] == [(1, 1.0), (4, 4.5)]
    assert thinned[-1] == (2499, 2499.0)
    assert len(thinned) == 834

"""`videorl top`: what it reads of a run folder, and how it shows it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from jobs import command
from jobs.exit_codes import ExitCode
from jobs.top import main
from tests.watched_runs import make_run
from videorl.run.folder import RunFolder
from videorl.run.lock import hold
from videorl.run.pool_sizes import PoolSize, PoolState, write_states
from videorl.run.sinks import JsonlSink
from videorl.watch.run_state import RunReader
from videorl.watch.top import Top, top


def run_of(root: Path, rows: int = 5) -> Path:
    """A run of six steps, `rows` of which are done: 2 s each, half of it waiting."""
    make_run(root, 1)
    (root / "metrics.jsonl").unlink()
    sink = JsonlSink(root / "metrics.jsonl")
    for step in range(rows):
        row = {
            "reward/quality": 0.5 * step,
            "reward/total": 0.25 * step,
            "spread/total": 0.125,
            "unseen/sharpness": 5.0,
            "learn/loss": float("nan") if step == 4 else 0.6875,
            "candidates/dropped_score_not_finite": float(step % 2),
            "candidates/dropped_request_lost": 0.0,
            "fixed_prompts/lost": float(step // 2),
            "tracker/wandb_lost": 0.0,
            "pool/generator_workers": 2.0,
            "pool/generator_pending": 1.0,
            "pool/generator_fenced": 1.0,
            "work/sample_s": 3.0,
            "weights/bytes": 8.0e6,
            "time/wait_s": 1.0,
            "time/other_s": 1.0,
            "time/step_s": 2.0,
        }
        sink.write(step, row)
    return root


def look(root: Path, later_s: float = 0.0) -> Top:
    reader = RunReader(root)
    run = reader.read()
    return top(run, reader.folder, run.updated + later_s)


def test_a_run_that_works(tmp_path: Path) -> None:
    root = run_of(tmp_path / "first")
    size = PoolSize(1, 4)
    write_states(RunFolder(root), 1, {"generator": PoolState(size, size, 3, 0, 3, 7)})
    with hold(root):
        found = look(root, later_s=3.0)
    assert (found.name, found.state, found.step, found.num_steps) == ("first", "running", 5, 6)
    assert (found.step_s, found.eta_s, found.since_step_s) == (2.0, 2.0, pytest.approx(3.0))
    total, quality = found.rewards
    assert (total.name, total.now, total.first, total.spread) == ("reward/total", 1.0, 0.0, 0.125)
    assert (quality.now, quality.spread) == (2.0, None)
    (loss,) = found.values
    assert loss.now == 0.6875, "the newest that is a number"
    assert found.pools["generator"] == {
        "workers": 3, "pending": 1.0, "fenced": 1.0, "busy": 3, "starting": 0, "queued": 7
    }  # fmt: skip
    assert found.seconds == {"wait": 1.0, "other": 1.0} and found.work == {"sample": 3.0}
    assert found.lost == {"candidates/dropped_score_not_finite": 2.0}
    assert found.lost_so_far == {"fixed_prompts/lost": 2.0}, "a total, not added up"
    assert found.bytes_published == 8.0e6
    assert [alert.title for alert in found.alerts] == ["Work is lost in the last 5 steps"]


def test_a_run_before_its_first_step_and_one_that_has_stopped(tmp_path: Path) -> None:
    empty = look(run_of(tmp_path / "empty", rows=0))
    assert (empty.step, empty.step_s, empty.eta_s, empty.since_step_s) == (0, None, None, None)
    assert empty.pools == {} and empty.seconds == {} and empty.rewards == []
    stopped = look(run_of(tmp_path / "stopped"))
    assert stopped.state == "stopped" and stopped.eta_s is None
    assert stopped.pools["generator"]["workers"] == 2.0, "as its last step ended"


def test_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = run_of(tmp_path / "first")
    assert main([str(root), "--once"]) == 0
    shown = capsys.readouterr().out
    for text in (
        "first",
        "stopped",
        "step 5/6",
        "2.0 s per step",
        "weights 8.0 MB",
        "prompts/lost 2",
    ):
        assert text in shown
    assert main([str(root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["step"] == 5 and found["rewards"][0]["now"] == 1.0
    assert found["alerts"][0]["title"].startswith("Work is lost")


def test_it_follows_a_run_in_a_terminal_until_it_ends(tmp_path: Path) -> None:
    root = run_of(tmp_path / "first", rows=1)
    leader, follower = pty.openpty()
    with hold(root):
        words = [sys.executable, "-m", "jobs.top", str(root), "--interval", "0.1"]
        process = subprocess.Popen(words, stdout=follower, env={**os.environ, "COLUMNS": "100"})
        os.close(follower)
        seen = read_until(leader, "step 1/6")
        JsonlSink(root / "metrics.jsonl").write(1, {"reward/total": 0.5, "time/step_s": 2.0})
        seen += read_until(leader, "step 2/6")
        assert process.poll() is None, seen
    read_until(leader, "stopped")
    assert process.wait(180) == 0


def read_until(terminal: int, text: str) -> str:
    """Return what a terminal was sent up to and with a text; the test's timeout ends it."""
    seen = io.StringIO()
    while text not in seen.getvalue():
        seen.write(os.read(terminal, 4096).decode(errors="replace"))
    return seen.getvalue()


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(main, [str(tmp_path), "--once"]) == ExitCode.REFUSED
    assert "is not a run folder" in capsys.readouterr().err

import io
import math
import os
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from videorl.run.progress import ProgressSink, duration, progress, sparkline

METRICS = {
    "reward/total": -0.25,
    "learn/loss": 0.6931,
    "learn/margin": 0.5,
    "learn/accuracy": 0.75,
    "staleness/steps": 1.0,
    "time/wait_s": 1.5,
    "time/learn_s": 0.5,
    "time/step_s": 2.0,
    "groups/dropped_work_lost": 1.0,
    "candidates/dropped_score_not_finite": 2.0,
}


def test_sparkline_by_hand() -> None:
    assert sparkline([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, 0.0, 7.0, 7.0], width=2) == "▁█"
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == ""
    assert len(sparkline([float(i) for i in range(1000)])) == 24


def test_durations() -> None:
    shown = [duration(seconds) for seconds in (0.4, 59.7, 185, 7800)]
    assert shown == ["0 s", "1 min 00 s", "3 min 05 s", "2 h 10 min"]


def test_a_log_gets_one_plain_line_per_step() -> None:
    stream = io.StringIO()
    sink = ProgressSink(12, stream)
    sink.write(0, METRICS)
    sink.write(1, METRICS | {"reward/total": 0.5})
    sink.close()
    first, second = stream.getvalue().splitlines()
    assert first == (
        "step 1/12  reward -0.250 (+0.000)  ▁  loss 0.693  margin +0.500  accuracy 75%  stale 1  "
        "dropped 3  2.0 s (wait 1.5, learn 0.5)  ETA 22 s"
    )
    assert second.startswith("step 2/12  reward +0.500 (+0.750)  ▁█  ")
    assert second.endswith("ETA 20 s")


def test_any_objective_has_its_loss_and_accuracy_shown() -> None:
    stream = io.StringIO()
    metrics = {"learn/loss": 0.25, "learn/accuracy": 0.5, "hinge/margin": 3.0, "time/step_s": 1.0}
    ProgressSink(3, stream).write(0, metrics)
    assert stream.getvalue().startswith("step 1/3  loss 0.250  accuracy 50%  1.0 s")


def test_a_value_that_is_not_finite_ends_nothing() -> None:
    assert sparkline([0.0, math.nan, 7.0, math.inf]) == "▁·█·"
    assert sparkline([math.nan]) == "·"
    stream = io.StringIO()
    sink = ProgressSink(3, stream)
    sink.write(0, {"reward/total": 1.0, "learn/loss": 0.5, "time/step_s": 1.0})
    sink.write(1, {"reward/total": math.nan, "learn/loss": math.nan, "time/step_s": 1.0})
    assert "reward +nan (+nan)  ▁·  loss nan" in stream.getvalue()


def test_a_step_without_candidates_is_shown_too() -> None:
    stream = io.StringIO()
    ProgressSink(3, stream).write(0, {"time/step_s": 1.0, "groups/dropped_work_lost": 4.0})
    assert stream.getvalue() == "step 1/3  dropped 4  1.0 s  ETA 2 s\n"


def test_a_resumed_run_says_so() -> None:
    stream = io.StringIO()
    ProgressSink(12, stream).truncate(5)
    assert stream.getvalue() == "resumed after step 5/12\n"


def test_a_terminal_gets_a_live_display_and_its_cursor_back() -> None:
    master, slave = os.openpty()
    with os.fdopen(slave, "w") as terminal:
        sink = ProgressSink(2, terminal)
        sink.write(0, METRICS)
        sink.write(1, METRICS)  # the last step: the display ends by itself
        terminal.flush()
        shown = ""
        while select.select([master], [], [], 1.0)[0]:  # one read may return less than was written
            shown += os.read(master, 65536).decode()
        sink.close()
    os.close(master)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert "step 1/2" in text
    assert "step 2/2" in text
    assert "accuracy 75%" in text
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # cursor shown after hidden


def test_rich_is_imported_only_for_a_terminal() -> None:
    code = (
        "import io, sys; from videorl.run.progress import ProgressSink\n"
        "ProgressSink(2, io.StringIO()).write(0, {'reward/total': 1.0})\n"
        "assert 'rich' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_work_in_a_log_gets_a_line_per_twentieth_with_its_value_and_pace(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds = iter([0.0, 4.0, 5.0, 50.0, 100.0])
    monkeypatch.setattr("videorl.run.progress.time.perf_counter", lambda: next(seconds))
    with progress("clips", 200, 5) as reach:  # a resumed run: only what is new has a rate
        for done in (9, 10, 105):
            reach(done)
        reach(200, 0.125)
    assert capsys.readouterr().err.splitlines() == [
        "clips: 5/200",
        "clips: 10/200  1/s, ETA 3 min 10 s",
        "clips: 105/200  2/s, ETA 48 s",
        "clips: 200/200  0.1250  1.95/s, all done",
    ]


def test_slow_work_has_its_seconds_per_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 250.0])
    monkeypatch.setattr("videorl.run.progress.time.perf_counter", lambda: next(seconds))
    with progress("videos", 100) as reach:
        reach(5)
    assert capsys.readouterr().err.splitlines()[-1] == "videos: 5/100  50 s each, ETA 1 h 19 min"


def test_work_on_a_terminal_gets_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress("clips", 4) as reach:
        reach(4, 0.125)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert re.search(r"4/4 0\.1250 .*(/s|s each), all done", shown)

"""A command that is started again: only where that may help, and never against a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import command, retry

STEPS = """
import os, signal, sys
from pathlib import Path
tries = Path(sys.argv[1])
with tries.open("a") as file:
    file.write("x")
ending = sys.argv[2:][len(tries.read_text()) - 1]
if ending == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(ending))
"""


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def tries_of(folder: Path, *endings: object, times: int = 5) -> tuple[int, int]:
    """Return the exit code, and how often the command was started, which ends as told."""
    said = [sys.executable, "-c", STEPS, str(folder / "tries"), *map(str, endings)]
    code = command.run(retry.main, ["--times", str(times), "--pause", "0.01", "--", *said])
    return code, len((folder / "tries").read_text())


@pytest.mark.parametrize(
    ("endings", "code", "tries"),
    [
        ([0], 0, 1),
        ([75, "killed", 0], 0, 3),
        ([75, 2, 0], 2, 2),
        ([3], 3, 1),
        ([1], 1, 1),
        ([130], 130, 1),
    ],
)
def test_only_what_may_pass_is_tried_again(
    endings: list[object], code: int, tries: int, tmp_path: Path
) -> None:
    assert tries_of(tmp_path, *endings) == (code, tries)


def test_tries_end(tmp_path: Path) -> None:
    assert tries_of(tmp_path, *[75] * 9, times=2) == (75, 3)


def test_a_command_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(retry.main, ["--", "no-such-command"]) == 2
    assert command.run(retry.main, []) == 2
    assert "cannot run no-such-command: No such file" in capsys.readouterr().err


@pytest.mark.parametrize("is_job", [False, True], ids=["alone", "in a Ray job"])
def test_a_stop_reaches_the_command_once(is_job: bool, tmp_path: Path) -> None:
    """Ray sends the signal to every process of a job, so that the command has it already."""
    waiting = (
        "import signal, sys, time; n = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: n.append(1))\n"
        "print('up', flush=True)\n"
        "while not n: time.sleep(0.05)\n"
        "time.sleep(1); print(len(n), flush=True); sys.exit(130)"
    )
    environment = {**os.environ, **({"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"} if is_job else {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "jobs.retry", "--", sys.executable, "-c", waiting],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    if is_job:
        os.killpg(process.pid, signal.SIGTERM)
    else:
        process.terminate()
    assert process.stdout.read() == "1\n"
    assert process.wait(180) == 130


def test_a_stop_between_two_tries_is_the_last(tmp_path: Path) -> None:
    program = [sys.executable, "-c", STEPS, str(tmp_path / "tries"), "75", "0"]

    def stop() -> None:
        while not (tmp_path / "tries").exists():
            time.sleep(0.05)
        time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert command.run(retry.main, ["--pause", "600", "--", *program]) == 130
    assert (tmp_path / "tries").read_text() == "x"

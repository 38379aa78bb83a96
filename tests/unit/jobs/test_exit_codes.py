"""Which error ends a command with which code: whoever starts it again decides by that."""

from __future__ import annotations

import errno
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, GetTimeoutError, RayTaskError

from jobs import command
from jobs.exit_codes import MEANINGS, ExitCode, code_of
from videorl import errors
from videorl.run.lock import hold

ROOT = Path(__file__).resolve().parents[3]


def caused_by(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ConfigError("seed"), ExitCode.REFUSED),
        (errors.ResourceError("more GPUs than any node has"), ExitCode.REFUSED),
        (errors.UnreachableError("no Ray there"), ExitCode.TRANSIENT),
        (errors.PoolFailedError("no such model"), ExitCode.REFUSED),
        (errors.PoolLostError("its processes died"), ExitCode.TRANSIENT),
        (errors.LearnerFailedError("no such model"), ExitCode.REFUSED),
        (errors.LearnerLostError("failed 6 times"), ExitCode.TRANSIENT),
        (errors.MediaLostError("gone with a node"), ExitCode.TRANSIENT),
        (errors.RoundsLostError("ties"), ExitCode.REFUSED),
        (errors.BusyError("another driver"), ExitCode.TRANSIENT),
        (errors.StoppedError("asked to"), ExitCode.STOPPED),
        (KeyboardInterrupt(), ExitCode.STOPPED),
        (errors.StoreLostError("503"), ExitCode.TRANSIENT),
        (errors.CheckpointError("half-written"), ExitCode.REFUSED),
        (errors.ArchiveError(errno.ENOSPC, "full"), ExitCode.TRANSIENT),
        (errors.ArchiveError("damaged"), ExitCode.REFUSED),
        (caused_by(errors.RunFolderError("x"), OSError(errno.ESTALE, "")), ExitCode.TRANSIENT),
        (caused_by(errors.RunFolderError("x"), PermissionError(13, "no")), ExitCode.REFUSED),
        (caused_by(errors.ConfigError("x"), KeyError("no")), ExitCode.REFUSED),
        (OSError(errno.EIO, "input/output error"), ExitCode.TRANSIENT),
        (FileNotFoundError(errno.ENOENT, "no such file", "x"), ExitCode.REFUSED),
        (ConnectionResetError("gone"), ExitCode.TRANSIENT),
        (GetTimeoutError("no answer"), ExitCode.TRANSIENT),
        (ActorDiedError(), ExitCode.TRANSIENT),
        (RayTaskError("step", "traceback", KeyError("a bug")), None),
        (KeyError("a bug"), None),
        (OSError("a bug"), None),
        (BrokenPipeError(errno.EPIPE, "nobody reads"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_has_its_code(error: BaseException, code: ExitCode | None) -> None:
    assert code_of(error) == code


def test_only_what_may_pass_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(argv: Sequence[str] | None) -> int:
        raise errors.PoolLostError("lost") if argv else errors.PoolFailedError("wrong")

    assert command.run(fail, ["x"]) == ExitCode.TRANSIENT
    assert command.run(fail, []) == ExitCode.REFUSED
    lost, wrong = capsys.readouterr().err.splitlines()
    assert lost == "error: lost; this may pass: start the same command again"
    assert wrong == "error: wrong"


def test_sigterm_before_anybody_looks_after_it_stops_the_command() -> None:
    def wait(argv: Sequence[str] | None) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    assert command.run(wait, []) == ExitCode.STOPPED
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_run_folder_that_another_driver_holds_may_be_free_later(tmp_path: Path) -> None:
    with hold(tmp_path), pytest.raises(errors.BusyError) as refused, hold(tmp_path):
        pass
    assert code_of(refused.value) == ExitCode.TRANSIENT


def test_the_documented_table_is_the_one_of_the_code() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.*?) \|$", text, re.MULTILINE))
    assert rows == {str(code.value): meaning for code, meaning in MEANINGS.items()}

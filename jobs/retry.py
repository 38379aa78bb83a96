"""Start a command again where that may help: where it lost nodes, storage or its own process.

    python -m jobs.retry -- videorl train moving_shapes run_dir=/shared/runs/first
    python -m jobs.retry --times 20 --stop-job -- videorl train my_recipe.yaml

The command is started again after exit code 75, and after a signal killed it (out of memory, say);
any other exit code is this command's own at once. In a submitted Ray job, --stop-job ends a job
whose command was refused as *stopped* instead of *failed*: KubeRay's `backoffLimit` starts failed
jobs again, on a new cluster each, whatever their exit code.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from types import FrameType

from jobs import command
from jobs.exit_codes import ExitCode
from videorl.errors import ConfigError

_logger = logging.getLogger(__name__)

_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets it for the entrypoint of a job."""
_LONGEST_S = 600.0
_STOP_S = 120.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command until it needs no other try; return its exit code."""
    parser = command.new_parser("python -m jobs.retry", __doc__)
    command.add_option(parser, "--times", 10, "tries after the first, without progress in between")
    command.add_option(parser, "--pause", 15.0, "seconds before the second try; then twice as long")
    command.add_option(parser, "--progress", 900.0, "a try of so many seconds counts as progress")
    text = "in a Ray job: end it as stopped if the command is refused"
    parser.add_argument("--stop-job", action="store_true", help=text)
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND", help="to run")
    options = parser.parse_args(argv)
    words = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not words:
        raise ConfigError("there is no command to run: python -m jobs.retry [options] -- COMMAND")
    command.start_logging()
    code = _Tries(options.times, options.pause, options.progress).run(words)
    is_refused = code not in (ExitCode.DONE, ExitCode.TRANSIENT, ExitCode.STOPPED)
    if options.stop_job and is_refused and _JOB in os.environ:
        _stop_own_job(code)
    return code


class _Tries:
    """Tries of one command.

    Args:
        times: Tries after the first.
        pause_s: Before the second.
        progress_s: A try of so many seconds begins the count anew.
    """

    def __init__(self, times: int, pause_s: float, progress_s: float) -> None:
        self._times, self._pause_s, self._progress_s = times, pause_s, progress_s
        self._process: subprocess.Popen[bytes] | None = None
        self._is_stopped = False

    def run(self, words: Sequence[str]) -> int:
        """Return the exit code of the last try."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        tried = 0
        while True:
            started = time.monotonic()
            code = self._try(words)
            if self._is_stopped or (code != ExitCode.TRANSIENT and code >= 0):
                return code if code >= 0 else ExitCode.STOPPED
            tried = 0 if time.monotonic() - started >= self._progress_s else tried + 1
            if tried > self._times:
                _logger.error("given up after %d tries in a row without progress", tried)
                return ExitCode.TRANSIENT
            pause = min(_LONGEST_S, self._pause_s * 2 ** max(0, tried - 1))
            _logger.warning("%s; started again in %.0f s", _ended(code), pause)
            if self._slept(pause):
                return ExitCode.STOPPED

    def _try(self, words: Sequence[str]) -> int:
        try:
            self._process = subprocess.Popen(words)
        except OSError as error:
            raise ConfigError(f"cannot run {words[0]}: {error.strerror}") from error
        return self._process.wait()

    def _slept(self, seconds: float) -> bool:
        """Sleep; return whether a signal came."""
        end = time.monotonic() + seconds
        while not self._is_stopped and (left := end - time.monotonic()) > 0:
            time.sleep(min(0.2, left))
        return self._is_stopped

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._is_stopped = True
        # Ctrl-C reaches the command by itself, and Ray signals all processes of a job: a second
        # signal would end the command before its checkpoint.
        is_alone = number == signal.SIGTERM and _JOB not in os.environ
        if is_alone and self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)


def _ended(code: int) -> str:
    if code < 0:
        return f"the command was killed by signal {-code}"
    return f"the command ended with exit code {code}"


def _stop_own_job(code: int) -> None:
    """Stop the Ray job that this process is the entrypoint of; its signal ends the process."""
    from ray.job_submission import JobSubmissionClient

    name = json.loads(os.environ[_JOB])["metadata"]["job_submission_id"]
    _logger.error("%s: the job is stopped, so that nothing starts it again", _ended(code))
    JobSubmissionClient().stop_job(name)
    time.sleep(_STOP_S)


if __name__ == "__main__":
    raise SystemExit(command.run(main))

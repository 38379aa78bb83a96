"""The servers of `videorl watch` and `videorl judge` as processes, for what drives their pages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from videorl.errors import VideorlError

CHROMIUM = Path("/usr/bin/chromium")
"""Debian's browser, which playwright drives."""


@contextmanager
def served(place: Path, *options: str, module: str = "jobs.watch") -> Iterator[str]:
    """Serve a page on a free port meanwhile; yield its address, which ends in /.

    Args:
        place: What the command of `module` shows.
        options: Further words of the command.
        module: `jobs.watch` or `jobs.judge`.
    """
    with started(module, place, *options) as (url, _):
        yield url


@contextmanager
def started(
    module: str, *words: object, log: IO[str] | None = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a server on a free port meanwhile; yield its address, which ends in /, and its process.

    Args:
        module: `jobs.watch` or `jobs.judge`.
        words: Of its command.
        log: Gets what the server logs; None = this process's standard error.

    Raises:
        VideorlError: It ended before it served; its log says why.
    """
    command = [sys.executable, "-m", module, *map(str, words), "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        opening = (line.split()[1] for line in server.stdout if line.startswith("open "))
        if (url := next(opening, None)) is None:
            raise VideorlError(f"{module} ended with code {server.wait()} before it served a page")
        yield url, server
    finally:
        server.terminate()
        server.wait()

"""The servers of `videorl watch` and `videorl judge` as processes, for what drives their pages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    words = [sys.executable, "-m", module, str(place), "--port", "0", *options]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        yield next(line.split()[1] for line in server.stdout if line.startswith("open "))
    finally:
        server.terminate()
        server.wait()

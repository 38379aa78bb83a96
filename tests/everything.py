"""Runs every test, and those that fail once more, with nothing beside them.

    python -m tests.everything

Tests on Ray mostly wait for processes to start: all others run meanwhile, in two processes, and
are shown after them. On a slow machine so much at a time may make a test miss its limit, so up to
five failed tests run again alone. Those that then pass are named at the end: each is still a
fault to mend, of the test or of what it tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ON_RAY = ("tests/ray", "tests/chaos")
MOST_AGAIN = 5
"""More failures than these are not for want of time."""


def main(root: Path = ROOT, build: Path = Path(sys.prefix)) -> int:
    """Run the tests of `root` with memory and log in `build`; return the exit code."""
    caches = [build / "unit-cache", build / "ray-cache"]
    log = build / "unit.log"
    others = ["-n", "2", "--dist", "loadfile", "tests", *(f"--ignore={path}" for path in ON_RAY)]
    with log.open("w") as file:
        beside = subprocess.Popen(
            words(caches[0], *others), cwd=root, stdout=file, stderr=file, preexec_fn=give_way
        )
    on_ray = subprocess.run(words(caches[1], *ON_RAY), cwd=root).returncode
    codes = [beside.wait(), on_ray]
    print(log.read_text(), flush=True)
    if not any(codes):
        return 0
    failed = [name for cache in caches for name in failures(cache)]
    if set(codes) - {0, 1} or not 0 < len(failed) <= MOST_AGAIN:
        return 1
    print(f"{len(failed)} failed; once more, with nothing beside:", flush=True)
    again = subprocess.run(words(build / "again-cache", *failed), cwd=root).returncode
    for name in failed:
        print(f"FAILED beside others, {'again' if again else 'passed alone'}: {name}", flush=True)
    return again


def words(cache: Path, *arguments: str) -> list[str]:
    """Return the command of pytest with a memory of failures of its own, which is empty."""
    remembered = cache / "v/cache/lastfailed"
    remembered.unlink(missing_ok=True)
    return [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]


def failures(cache: Path) -> list[str]:
    """Return what has failed in the run with this memory."""
    try:
        return list(json.loads((cache / "v/cache/lastfailed").read_text()))
    except FileNotFoundError:
        return []


def give_way() -> None:
    """Let the tests on Ray go first."""
    os.nice(19)


if __name__ == "__main__":
    sys.exit(main())

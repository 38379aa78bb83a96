"""What benchmarks share: Ray at full priority, and numbers as lines and as JSON."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def keep_priority() -> None:
    """Let Ray's workers run at normal priority; by default they give way to every other process."""
    os.environ.setdefault("RAY_worker_niceness", "0")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`, for `write_json`."""
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")


def write_json(path: Path | None, found: Any) -> None:
    """Write the numbers if there is a path, in the order in which they were measured."""
    if path is not None:
        path.write_text(json.dumps(found, indent=2) + "\n")


def show(numbers: Mapping[str, Any], title: str = "") -> None:
    """Print one number per line, below a title."""
    if title:
        print(f"\n{title}")
    for name, value in numbers.items():
        text = f"{value:.4g}" if isinstance(value, float) else value
        if isinstance(value, list):
            text = ", ".join(map(str, value))
        print(f"  {name:<44}{text}", flush=True)

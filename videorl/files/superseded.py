"""What a start would replace is moved, never deleted.

A run that goes on from a checkpoint cuts off what it did after it, and does it again. What was cut
off lies in `superseded/` of the run folder until a checkpoint covers it again. A run that begins
anew by the user's wish (`--from-scratch`) leaves the old one beside its folder, whole.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Collection
from pathlib import Path

FOLDER = "superseded"
_FIRST = ("checkpoints", "checkpoint.json")
"""Moved before all else: without them, what is left of a run is not taken for one to go on with."""


def move(path: Path, root: Path) -> None:
    """Move a file or folder of the run folder `root` into its `superseded/`, if it is there."""
    if not path.exists():
        return
    target = root / FOLDER / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(path, target)


def place(path: Path, root: Path) -> Path:
    """Return where a file of the run folder `root` is kept once it is superseded."""
    target = root / FOLDER / path.relative_to(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def drop(root: Path, step: int) -> None:
    """Delete what a checkpoint of `step` covers: archived steps before it, which were done again.

    Once nothing of a later step is left, the folder goes as a whole, with the metrics in it.
    """
    folder = root / FOLDER
    is_needed = False
    for path in list(folder.glob("archive/*/step-*")):
        if int(path.name[len("step-") :].removesuffix(".parquet")) >= step:
            is_needed = True
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for path in folder.glob("*.jsonl"):
        steps = map(int, re.findall(r'^\{"step": (\d+)', path.read_text(), re.MULTILINE))
        is_needed = is_needed or any(number >= step for number in steps)
    if not is_needed:
        shutil.rmtree(folder, ignore_errors=True)


def old_name(name: str) -> str:
    """Return the name under which what `name` holds now is kept."""
    return f"{name}.old-{time.strftime('%Y%m%d-%H%M%S')}"


def set_aside(root: Path, but: Collection[str]) -> Path | None:
    """Move all that a run folder holds to a new folder beside it.

    Args:
        root: The run folder, whose lock the caller holds.
        but: Names of files that stay, such as that of the lock.

    Returns:
        The new folder; None if there was nothing to move.
    """
    content = [path for path in sorted(root.iterdir()) if path.name not in but]
    if not content:
        return None
    names = (f"{old_name(root.name)}{end}" for end in ("", *(f"-{n}" for n in range(1, 1000))))
    aside = next(path for name in names if not (path := root.with_name(name)).exists())
    aside.mkdir()
    for path in sorted(content, key=lambda path: path.name not in _FIRST):
        os.replace(path, aside / path.name)
    return aside

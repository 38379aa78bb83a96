"""The unique id of a run: made when its folder is, kept however often it goes on."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from pathlib import Path

from videorl.files import write_text

logger = logging.getLogger(__name__)

FILE = "run_id"
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
"""What every tracker takes."""


def read_run_id(root: Path) -> str:
    """Return the id of the run in a folder; empty if it has none, as runs of older versions."""
    try:
        found = (root / FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return found if _ID.fullmatch(found) else ""


def keep_run_id(root: Path, name: str, *, is_new: bool) -> str:
    """Return the id of the run in a folder; make one if it has none.

    Args:
        root: The run folder, whose lock the caller holds.
        name: Of the recipe; the id begins with it.
        is_new: Whether the run begins. One that has been told to W&B by an older version keeps the
            id that it has there.
    """
    if found := read_run_id(root):
        return found
    if (root / FILE).exists():
        logger.warning("%s is damaged: trackers will show a new run", root / FILE)
    if not is_new and (root / "wandb").is_dir():
        made = older_id(root.name)
    else:
        # Not from the run's seed: the same recipe may run twice.
        made = f"{_plain(name)[:48] or 'run'}-{secrets.token_hex(6)}"
    write_text(root / FILE, f"{made}\n")
    return made


def older_id(folder: str) -> str:
    """Return the id that W&B was given for a run folder of this name before runs had ids."""
    plain = _plain(folder)[:50]
    if plain and plain == folder:
        return plain
    return f"{plain or 'run'}-{hashlib.sha256(folder.encode()).hexdigest()[:8]}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII)

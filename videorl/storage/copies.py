"""Where the copies of stored runs are on this machine, and what they know of the store."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videorl.files import write_json
from videorl.storage.place import name_of

NOTE = ".store.json"
"""In every copy: of which URI, and what was there when they were the same."""
OWN = frozenset({NOTE, ".lock", ".driver", ".driver.partial"})
"""Files of a copy that are of this machine alone."""
OWN_FOLDERS = frozenset({"checkpoints", "ray_train", ".drivers"})
"""Folders that the mirror leaves alone: the learner brings checkpoints to the store itself."""


def cache() -> Path:
    """Return the folder of all copies: `VIDEORL_COPIES`, or below the user's cache."""
    if given := os.environ.get("VIDEORL_COPIES"):
        return Path(given).absolute()
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "videorl/copies"


def copy_of(uri: str, kind: str) -> Path:
    """Return the folder of the copy of a URI, with the last part of its name.

    Args:
        uri: Of the run.
        kind: `working` = written here, `reading` = for those who only look.
    """
    key = hashlib.sha256(uri.encode()).hexdigest()[:12]
    return cache() / kind / key / (name_of(uri) or "run")


def uri_of(copy: Path) -> str | None:
    """Return the URI that a folder is a copy of; None = of none."""
    return read_note(copy).get("uri")


def read_note(copy: Path) -> dict[str, Any]:
    """Return what a copy knows of its store; empty = it is none, or was cut off."""
    try:
        return dict(json.loads((copy / NOTE).read_text()))
    except (OSError, ValueError):
        return {}


def write_note(copy: Path, note: Mapping[str, Any]) -> None:
    """Replace what a copy knows."""
    write_json(copy / NOTE, note)

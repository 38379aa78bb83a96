"""What of a working copy is to be stored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from videorl.storage.copies import OWN, OWN_FOLDERS

Signature: TypeAlias = tuple[int, int]
"""Of a local file: bytes, and nanoseconds of its last change."""


def signature(known: os.stat_result) -> Signature:
    """Return what tells a file from what it was."""
    return known.st_size, known.st_mtime_ns


def scan(root: Path) -> dict[str, Signature]:
    """Return name -> signature of every file to store, in the order of their changes.

    Files appear, grow and vanish meanwhile. What is being written under another name is left out.
    """
    found = dict(_files(str(root), ""))
    return dict(sorted(found.items(), key=lambda item: item[1][1]))


def is_stored(name: str) -> bool:
    """Tell whether a file of this name is stored by the mirror."""
    first, _, rest = name.partition("/")
    return first not in (OWN_FOLDERS if rest else OWN) and not name.endswith(".partial")


def _files(folder: str, start: str) -> Iterator[tuple[str, Signature]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        name = start + entry.name
        try:
            if entry.is_dir(follow_symlinks=False):
                if is_stored(f"{name}/x"):
                    yield from _files(entry.path, f"{name}/")
            elif is_stored(name) and entry.is_file():
                yield name, signature(entry.stat())
        except FileNotFoundError:
            continue

"""Folders that a worker writes for the driver, whose disk it may not see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import ray
from ray import ObjectRef

from actors.processes.worker_process import own_node
from actors.store.media import fetch

_BLOCK = 64 * 2**20

PackedFolder: TypeAlias = Mapping[str, tuple[ObjectRef, ...]]
"""Path of a file below the folder -> its bytes, in the object store, in blocks."""


def write_on(node: str, folder: Path, write: Callable[[Path], object]) -> PackedFolder | None:
    """Have a folder written where a node finds it.

    Args:
        node: Its id; empty = all nodes see the folder.
        folder: Its place there.
        write: Writes into a folder on this node.

    Returns:
        What is to be put there, if this is another node; it lives as long as this process.
    """
    if not node or node == own_node():
        write(folder)
        return None
    with TemporaryDirectory(prefix="videorl-export-") as here:
        write(Path(here))
        files = sorted(path for path in Path(here).rglob("*") if path.is_file())
        return {
            path.relative_to(here).as_posix(): tuple(ray.put(block) for block in _blocks(path))
            for path in files
        }


def unpack_folder(packed: PackedFolder | None, folder: Path) -> None:
    """Write what `write_on` returned; None = it is there already."""
    for name, blocks in (packed or {}).items():
        path = folder / name
        partial = path.with_name(f".{path.name}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for block in blocks:
                file.writelines(fetch([block]))
        partial.replace(path)


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block

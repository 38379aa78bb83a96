"""What is in the folder of one checkpoint: files of parts of it, and a list of them all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from videorl.errors import CheckpointError
from videorl.run.remote_folder import RemoteFolder

STATE = RemoteFolder.LAST
"""The file that names the others, with their lengths, and has the loop's state."""
FORMAT = 1
"""Of that file; higher ones are later versions'."""


class NewerFormatError(CheckpointError):
    """A checkpoint was written by a later version of this project."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what libraries raise on a full disk into what it is.

    safetensors has an error of its own for it, and `torch.save` gives a bare RuntimeError.

    Raises:
        CheckpointError: A file below `folder` could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(folder).free / 2**20
        raise CheckpointError(
            f"cannot write into {folder}, where {free:.0f} MiB are free: {error}"
        ) from error


def read_state(path: Path) -> dict[str, Any]:
    """Return the state of one checkpoint whose files are all there, at their full lengths.

    Raises:
        NewerFormatError: This version cannot read it.
        OSError: It is damaged, and so do ValueError, KeyError and TypeError say.
    """
    state = json.loads((path / STATE).read_text())
    if state["format"] > FORMAT:
        raise NewerFormatError(
            f"{path} has checkpoint format {state['format']}, this version reads up to "
            f"{FORMAT}: upgrade videorl, or use another run_dir"
        )
    found = sizes_below(path)
    for name, size in state["files"].items():
        if found.get(name) != size:
            raise CheckpointError(f"{name} has {found.get(name, 'no')} of its {size} bytes")
    return state


def sizes_below(folder: Path) -> dict[str, int]:
    """Return the length in bytes of every file below `folder`, by relative path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}

"""Is a checkpoint in the layout of transformers what a measure needs?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError

LOADING: Mapping[str, Any] = {
    "output_loading_info": True,
    "local_files_only": True,
    "use_safetensors": True,
    "ignore_mismatched_sizes": True,  # `check_loaded` names them, transformers prints a table
}
"""Options of `from_pretrained`."""


def check_loaded(report: Mapping[str, Any], folder: Path, kind: str) -> None:
    """Check that every weight came from the checkpoint: transformers draws the others.

    Args:
        report: What `from_pretrained` returns with `output_loading_info`.
        folder: Of the checkpoint.
        kind: Name of the network.

    Raises:
        CheckpointError: Weights are missing, or of another shape; the first is named.
    """
    if absent := sorted(map(str, report["missing_keys"])):
        raise CheckpointError(f"{folder} lacks {len(absent)} weights of {kind}, {absent[0]} first")
    for name, got, wanted in sorted(report["mismatched_keys"]):
        raise CheckpointError(
            f"{folder}: {name} of {kind} has shape {list(got)}, but its config.json says "
            f"{list(wanted)}"
        )


def side_of(config: Any, folder: Path) -> int:
    """Return the side in pixels of the square pictures that a network was trained on.

    Args:
        config: Of the network.
        folder: Of the checkpoint.

    Raises:
        CheckpointError: They are not square, or not RGB.
    """
    size, channels = config.image_size, config.num_channels
    sides = {*size} if isinstance(size, list | tuple) else {size}
    if len(sides) != 1 or channels != 3:
        raise CheckpointError(
            f"{folder / 'config.json'}: expected pictures with one image_size and num_channels 3, "
            f"got image_size {size} and num_channels {channels}"
        )
    return int(sides.pop())

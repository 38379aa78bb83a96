"""The configurations of a policy, from a folder, our copies, or the hub: never its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError
from videorl.files import hub
from videorl.planning.published import PUBLISHED
from videorl.policies.checkpoints import PARTS, SHIPPED, read_json, weight_files

_FILES = {
    "index": "model_index.json",
    "scheduler": "scheduler/scheduler_config.json",
    **{part: f"{part}/config.json" for part in sorted(PARTS)},
}
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_WHERE = "policy.path"


@dataclass(frozen=True, slots=True)
class Configs:
    """What the configuration files of a diffusers pipeline say."""

    source: str
    """Where they are from, in words."""
    index: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Any]]
    """Of transformer, VAE and text encoder."""
    stored: Mapping[str, float]
    """Bytes per number in the weight files of each part, or the file sizes if `is_exact`."""
    is_exact: bool = False
    """The weights are here, so `stored` has their sizes."""


def read_configs(path: str) -> Configs:
    """Return the configurations of `policy.path`.

    Args:
        path: A folder, a checkpoint that we ship, or a hub id. Of a hub id that is among our
            copies nothing is downloaded, of another only its configuration files.

    Raises:
        CheckpointError: There is none, or the hub does not answer.
    """
    folder = SHIPPED.get(path, hub.local_path(path))
    if folder.is_dir():
        return _of_folder(folder)
    name = None if path.startswith((".", "/", "~")) else hub.parse(path)
    if name is None:
        raise CheckpointError(
            f"policy.path: there is no folder {folder}; give a diffusers pipeline folder, a hub id "
            f"such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or one of {sorted(SHIPPED)}"
        )
    if (known := PUBLISHED.get(name.repository.lower())) is not None:
        return Configs(
            f"our copy of the configurations of {name.repository}",
            known["index"],
            known["scheduler"],
            {part: known[part] for part in PARTS},
            known["stored"],
        )
    files = {key: hub.read_json(name, file, _WHERE) for key, file in _FILES.items()}
    return _parsed(f"hub configurations of {name}", files)


def _of_folder(folder: Path) -> Configs:
    found = _parsed(str(folder), {key: read_json(folder / file) for key, file in _FILES.items()})
    try:
        sizes = {
            part: float(sum(file.stat().st_size for file in weight_files(folder / part)))
            for part in PARTS
        }
    except OSError:  # configurations alone are enough for a plan
        return found
    return Configs(found.source, found.index, found.scheduler, found.parts, sizes, is_exact=True)


def _parsed(source: str, read: Mapping[str, Mapping[str, Any]]) -> Configs:
    parts = {part: read[part] for part in PARTS}
    stored = {
        part: float(_BYTES.get(config.get("dtype") or config.get("torch_dtype") or "float32", 4))
        for part, config in parts.items()
    }
    return Configs(source, read["index"], read["scheduler"], parts, stored)

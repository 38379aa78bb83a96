"""The configurations of a policy, from a folder, our copies, or the hub: never its weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError, ConfigError
from videorl.files import hub
from videorl.planning.published import PUBLISHED
from videorl.policies.checkpoints import PARTS, SHIPPED, models, read_json, weight_files
from videorl.policies.layouts import problem_of_index
from videorl.policies.quantized import problem_of_config

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
    """`config.json` of each model in the index: `transformer`, `vae`, `text_encoder_2`, …"""
    stored: Mapping[str, float]
    """Bytes per number in the weight files of each model, or the file sizes if `is_exact`."""
    is_exact: bool = False
    """The weights are here, so `stored` has their sizes."""


def read_configs(path: str, pipeline: str | None = None) -> Configs:
    """Return the configurations of `policy.path`.

    Args:
        path: A folder, a checkpoint that we ship, or a hub id. Of a hub id that is among our
            copies nothing is downloaded, of another only its configuration files.
        pipeline: Class that it must name, told before more is read; None = any.

    Raises:
        CheckpointError: There is none, or the hub does not answer; or its weights are quantised.
        ConfigError: It names another class.
    """
    folder = SHIPPED.get(path, hub.local_path(path))
    if folder.is_dir():
        return _of_folder(folder, pipeline)
    name = None if path.startswith((".", "/", "~")) else hub.parse(path)
    known = PUBLISHED.get((name.repository if name else path).lower())
    if name is None and known is None:
        raise CheckpointError(
            f"policy.path: there is no folder {folder}; give a diffusers pipeline folder, a hub id "
            f"such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or one of {sorted(SHIPPED)}"
        )
    if known is not None:
        return Configs(
            f"our copy of the configurations of {name.repository if name else path}",
            known["index"],
            known["scheduler"],
            {name: known[name] for name in models(known["index"], PARTS)},
            known["stored"],
        )
    assert name is not None
    name = hub.resolved(name, _WHERE)
    source = f"hub configurations of {name}"
    return _read(source, lambda file: hub.read_json(name, file, _WHERE), pipeline)


def _of_folder(folder: Path, pipeline: str | None) -> Configs:
    found = _read(str(folder), lambda file: read_json(folder / file), pipeline)
    try:
        sizes = {
            name: float(sum(file.stat().st_size for file in weight_files(folder / name)))
            for name in found.parts
        }
    except OSError:  # configurations alone are enough for a plan
        return found
    return Configs(found.source, found.index, found.scheduler, found.parts, sizes, is_exact=True)


def _read(source: str, read: Callable[[str], Mapping[str, Any]], pipeline: str | None) -> Configs:
    index = read("model_index.json")
    if pipeline is not None and (problem := problem_of_index(source, index, pipeline)):
        raise ConfigError(f"{_WHERE}: {problem}")
    scheduler = read("scheduler/scheduler_config.json")
    parts = {name: read(f"{name}/config.json") for name in models(index, PARTS)}
    for name, config in parts.items():
        if problem := problem_of_config(f"{name} of {source}", config):
            raise CheckpointError(f"{_WHERE}: {problem}")
    stored = {
        name: float(_BYTES.get(config.get("dtype") or config.get("torch_dtype") or "float32", 4))
        for name, config in parts.items()
    }
    return Configs(source, index, scheduler, parts, stored)

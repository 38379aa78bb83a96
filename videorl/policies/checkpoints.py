"""Find a diffusers checkpoint, and refuse an incomplete one before reading any weights."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError, ConfigError

PARTS = frozenset({"transformer", "vae", "text_encoder"})
SHIPPED = {"moving_shapes_wan": Path(__file__).resolve().parents[1] / "worlds/moving_shapes_wan"}
"""Checkpoints that are part of this repository, by the bare name that recipes use."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SMALL_FILES = {
    "model_index.json": PARTS,
    "scheduler/scheduler_config.json": frozenset({"transformer"}),
    "transformer/config.json": frozenset({"transformer"}),
    # The VAE's config says how large latents are, so samplers need it too.
    "vae/config.json": frozenset({"transformer", "vae"}),
    "text_encoder/config.json": frozenset({"text_encoder"}),
    "tokenizer/tokenizer_config.json": frozenset({"text_encoder"}),
}


def locate(path: str, parts: frozenset[str]) -> Path:
    """Return the local folder of `path`, downloading only what `parts` need from the hub.

    Args:
        path: A folder, a name in `SHIPPED`, or a hub id (`owner/name`).
        parts: The parts that will be loaded, a subset of `PARTS`.

    Raises:
        CheckpointError: There is no such folder, and the hub has no such id or cannot be reached.
    """
    folder = SHIPPED.get(path, Path(path).expanduser())
    if folder.is_dir():
        return folder
    if path in SHIPPED or not _HUB_ID.fullmatch(path):
        raise CheckpointError(
            f"policy.path: there is no folder {folder}; give a diffusers pipeline folder, "
            f"a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or one of {sorted(SHIPPED)}"
        )
    from huggingface_hub import snapshot_download

    wanted = [name for name, needed_by in _SMALL_FILES.items() if needed_by & parts]
    wanted += [f"{part}/*" for part in parts]
    if "text_encoder" in parts:
        wanted.append("tokenizer/*")
    try:
        return Path(snapshot_download(path, allow_patterns=wanted, ignore_patterns=["*.bin"]))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"policy.path: {path} is neither a folder here nor a readable hub id ({error}); "
            "check the spelling, the network, and HF_TOKEN for a gated model"
        ) from error


def check(folder: Path, pipeline: str, parts: frozenset[str]) -> dict[str, Any]:
    """Check that `folder` is a complete checkpoint of `pipeline`, reading only file headers.

    Args:
        folder: A diffusers pipeline folder.
        pipeline: Name of the expected pipeline class, such as `WanPipeline`.
        parts: The parts whose files must be complete.

    Returns:
        The content of `model_index.json`.

    Raises:
        CheckpointError: A file is missing, cannot be parsed, or is shorter than its header says.
        ConfigError: The folder belongs to another pipeline class.
    """
    index = read_json(folder / "model_index.json")
    if (found := index.get("_class_name")) != pipeline:
        raise ConfigError(
            f"policy.path: {folder} holds a {found}, but policy.family needs a {pipeline}"
        )
    for name, needed_by in _SMALL_FILES.items():
        if needed_by & parts:
            read_json(folder / name)
    for part in sorted(parts):
        for file in weight_files(folder / part):
            check_safetensors(file)
    return index


def read_json(file: Path) -> dict[str, Any]:
    """Parse one JSON file of a checkpoint.

    Raises:
        CheckpointError: It is missing or not JSON.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; {_REMEDY}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not valid JSON ({error}); {_REMEDY}") from error


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of one model folder, following its index if it is sharded.

    Raises:
        CheckpointError: The folder has no safetensors weights, or its index cannot be read.
    """
    names = [
        f"{stem}.safetensors{suffix}"
        for stem in ("diffusion_pytorch_model", "model")
        for suffix in ("", ".index.json")
    ]
    for file in (folder / name for name in names):
        if file.is_file() and file.suffix == ".safetensors":
            return [file]
        if file.is_file():
            shards = read_json(file).get("weight_map", {}).values()
            return [folder / shard for shard in sorted(set(shards))]
    raise CheckpointError(f"{folder} holds none of {', '.join(names)}; {_REMEDY}")


def check_safetensors(file: Path) -> None:
    """Check that a safetensors file is as long as its own header says, reading only the header.

    Raises:
        CheckpointError: It is missing or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt"):
            pass
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; {_REMEDY}") from error
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size
        raise CheckpointError(
            f"{file} ({size} bytes) is not a whole safetensors file ({error}); {_REMEDY}"
        ) from error


_REMEDY = "the checkpoint is half-written: download it or save it again"

"""Find a diffusers checkpoint, and refuse an incomplete one before reading any weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError, ConfigError
from videorl.files import hub
from videorl.policies.layouts import (
    files_of_part,
    problem_of_index,
    problem_of_layout,
    problem_of_weights,
    variant_of,
)

PARTS = frozenset({"transformer", "vae", "text_encoder"})
SHIPPED = {"moving_shapes_wan": Path(__file__).resolve().parents[1] / "worlds/moving_shapes_wan"}
"""Checkpoints that are part of this repository, by the bare name that recipes use."""

_WHERE = "policy.path"
_SMALL_FILES = {
    "model_index.json": PARTS,
    "scheduler/scheduler_config.json": frozenset({"transformer"}),
    "transformer/config.json": frozenset({"transformer"}),
    # The VAE's config says how large latents are, so samplers need it too.
    "vae/config.json": frozenset({"transformer", "vae"}),
    "text_encoder/config.json": frozenset({"text_encoder"}),
    "tokenizer/tokenizer_config.json": frozenset({"text_encoder"}),
}


def locate(path: str, parts: frozenset[str], pipeline: str | None = None) -> Path:
    """Return the local folder of `path`, downloading only what `parts` need from the hub.

    Args:
        path: A folder, a name in `SHIPPED`, or a hub id (`owner/name` or `owner/name@revision`).
        parts: The parts that will be loaded, a subset of `PARTS`.
        pipeline: As in `check`, to refuse another model before its weights come; None = any.

    Raises:
        CheckpointError: There is no such folder, and the hub has no such id or cannot be reached;
            or what it has is in another layout.
        ConfigError: It belongs to another pipeline class.
    """
    folder = SHIPPED.get(path, hub.local_path(path))
    if folder.is_dir():
        return folder
    name = None if path in SHIPPED else hub.parse(path)
    if name is None or name.file:
        raise CheckpointError(
            f"policy.path: there is no folder {folder}; give a diffusers pipeline folder, "
            f"a hub id such as Wan-AI/Wan2.1-T2V-1.3B-Diffusers, or one of {sorted(SHIPPED)}"
        )
    return hub.download(name, files_needed(name, parts, pipeline), _WHERE)


def files_needed(name: hub.HubId, parts: frozenset[str], pipeline: str | None) -> list[str]:
    """Return the files of a hub repository that `parts` need, having read only its smallest.

    Raises:
        CheckpointError, ConfigError: As `locate`.
    """
    names = hub.file_names(name, _WHERE)
    if "model_index.json" not in names:
        config = hub.read_json(name, "config.json", _WHERE) if "config.json" in names else {}
        raise CheckpointError(f"{_WHERE}: {problem_of_layout(str(name), names, config)}")
    index = hub.read_json(name, "model_index.json", _WHERE)
    if pipeline is not None and (problem := problem_of_index(str(name), index, pipeline)):
        raise ConfigError(f"{_WHERE}: {problem}")
    for part in sorted(parts):
        inside = {each.removeprefix(f"{part}/") for each in names if each.startswith(f"{part}/")}
        if problem := problem_of_weights(f"{name}: {part}", inside):
            raise CheckpointError(f"{_WHERE}: {problem}")
    small = [file for file, needed_by in _SMALL_FILES.items() if needed_by & parts]
    folders = sorted(parts | ({"tokenizer"} if "text_encoder" in parts else set()))
    own = [file for folder in folders for file in files_of_part(names, folder)]
    return sorted({*small, *own})


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
    if not (folder / "model_index.json").is_file():
        _refuse_layout(folder)
    index = read_json(folder / "model_index.json")
    if problem := problem_of_index(str(folder), index, pipeline):
        raise ConfigError(f"{_WHERE}: {problem}")
    for name, needed_by in _SMALL_FILES.items():
        if needed_by & parts:
            read_json(folder / name)
    for part in sorted(parts):
        for file in weight_files(folder / part):
            check_safetensors(file)
    return index


def _refuse_layout(folder: Path) -> None:
    """Say what a folder without `model_index.json` is, unless it is otherwise a pipeline's."""
    if any((folder / part / "config.json").is_file() for part in PARTS):
        return
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*")]
    names += [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    config = read_json(folder / "config.json") if "config.json" in names else {}
    raise CheckpointError(f"{_WHERE}: {problem_of_layout(str(folder), names, config)}")


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


def weights_variant(folder: Path) -> str | None:
    """Return what `from_pretrained` calls the variant of a model folder's weights; None = plain."""
    return variant_of({path.name for path in folder.glob("*")}) or None


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of one model folder, following its index if it is sharded.

    Raises:
        CheckpointError: The folder has no safetensors weights, or its index cannot be read.
    """
    if problem := problem_of_weights(str(folder), {path.name for path in folder.glob("*")}):
        raise CheckpointError(f"{_WHERE}: {problem}")
    variant = weights_variant(folder)
    whole, index = (
        (".safetensors", ".safetensors.index.json")
        if variant is None
        else (f".{variant}.safetensors", f".safetensors.index.{variant}.json")
    )
    stems = ("diffusion_pytorch_model", "model")
    for stem in stems:
        if (file := folder / f"{stem}{whole}").is_file():
            return [file]
        if (file := folder / f"{stem}{index}").is_file():
            shards = read_json(file).get("weight_map", {}).values()
            return [folder / shard for shard in sorted(set(shards))]
    wanted = ", ".join(f"{stem}{end}" for stem in stems for end in (whole, index))
    raise CheckpointError(f"{folder} holds none of {wanted}; {_REMEDY}")


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

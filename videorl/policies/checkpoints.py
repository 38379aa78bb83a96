"""Find a diffusers checkpoint, and refuse an incomplete one before reading any weights."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from videorl.errors import CheckpointError, ConfigError
from videorl.files import hub
from videorl.policies.layouts import (
    files_of_part,
    first_weights,
    problem_of_index,
    problem_of_layout,
    problem_of_weights,
    variant_of,
)
from videorl.policies.quantized import problem_of_config, problem_of_types

PARTS = frozenset({"transformer", "vae", "text_encoder"})
SHIPPED = {"moving_shapes_wan": Path(__file__).resolve().parents[1] / "worlds/moving_shapes_wan"}
"""Checkpoints that are part of this repository, by the bare name that recipes use."""

_WHERE = "policy.path"
_CONFIGS = {
    "scheduler": "scheduler_config.json",
    "tokenizer": "tokenizer_config.json",
    "guider": "guider_config.json",
    "image_processor": "preprocessor_config.json",
}
"""Component of a pipeline without its number -> the file that describes it; else config.json."""
_OWNERS = {
    "scheduler": "transformer",
    "guider": "transformer",
    "tokenizer": "text_encoder",
    "image_encoder": "text_encoder",
    "image_processor": "text_encoder",
    "connectors": "text_encoder",
}
"""Component without its number -> the part that it is loaded with; models are parts of their own:
`transformer_2` is loaded with the transformer."""


def components(index: Mapping[str, Any], parts: Collection[str]) -> list[str]:
    """Return the folders of a pipeline that `parts` need, such as `transformer_2`.

    Args:
        index: Content of its `model_index.json`.
        parts: Some of `PARTS`.
    """
    named = [
        name
        for name, value in index.items()
        if isinstance(value, list) and len(value) == 2 and value[0] is not None
    ]
    return sorted(
        {*parts} | {name for name in named if _OWNERS.get(kind(name), kind(name)) in parts}
    )


def kind(component: str) -> str:
    """Return what a component is, without its number: `tokenizer` of `tokenizer_2`."""
    return component.rstrip("0123456789").rstrip("_")


def models(index: Mapping[str, Any], parts: Collection[str]) -> list[str]:
    """Return those of `components` that have weights."""
    return [name for name in components(index, parts) if kind(name) not in _CONFIGS]


def _small_files(index: Mapping[str, Any], parts: Collection[str]) -> list[str]:
    """Return the descriptions that `parts` need."""
    needed = components(index, parts)
    # Every pipeline has these; the VAE's config says how large latents are, so samplers need it.
    needed += [*({"scheduler", "vae"} if "transformer" in parts else ())]
    # LTX-2's sound is sampled, but not decoded.
    needed += [*({"audio_vae"} & index.keys() if "transformer" in parts else ())]
    needed += [*({"tokenizer"} if "text_encoder" in parts else ())]
    files = {f"{name}/{_CONFIGS.get(kind(name), 'config.json')}" for name in needed}
    return ["model_index.json", *sorted(files)]


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
    for part in models(index, parts):
        if problem := _problem_of_part(str(name), index, part, names):
            raise CheckpointError(f"{_WHERE}: {problem}")
        if (file := f"{part}/config.json") in names:
            _refuse_quantized(f"{name}: {part}", hub.read_json(name, file, _WHERE))
        inside = {each.removeprefix(f"{part}/") for each in names if each.startswith(f"{part}/")}
        if problem := problem_of_weights(f"{name}: {part}", inside):
            raise CheckpointError(f"{_WHERE}: {problem}")
        for file in first_weights(part, inside):
            if problem := problem_of_types(f"{name}: {file}", hub.tensor_types(name, file, _WHERE)):
                raise CheckpointError(f"{_WHERE}: {problem}")
    small = _small_files(index, parts)
    folders = {*components(index, parts), *({"tokenizer"} & {file.split("/")[0] for file in small})}
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
    names = [path.relative_to(folder).as_posix() for path in folder.glob("*/*")]
    for part in models(index, parts):
        if problem := _problem_of_part(str(folder), index, part, names):
            raise CheckpointError(f"{_WHERE}: {problem}")
    for name in _small_files(index, parts):
        read_json(folder / name)
    for part in models(index, parts):
        _refuse_quantized(str(folder / part), read_json(folder / part / "config.json"))
        for file in weight_files(folder / part):
            if problem := problem_of_types(str(file), check_safetensors(file)):
                raise CheckpointError(f"{_WHERE}: {problem}")
    return index


def _problem_of_part(
    place: str, index: Mapping[str, Any], part: str, names: Collection[str]
) -> str | None:
    """Return that a pipeline lacks a model that is needed of it; None if there is its folder."""
    if any(name.startswith(f"{part}/") for name in names):
        return None
    there = sorted({name.split("/")[0] for name in names if "/" in name})
    return (
        f"{place} has no {part}, which a {index.get('_class_name')} needs; it holds "
        f"{', '.join(there) or 'no models'}: give a whole pipeline"
    )


def _refuse_quantized(place: str, config: Mapping[str, Any]) -> None:
    if problem := problem_of_config(place, config):
        raise CheckpointError(f"{_WHERE}: {problem}")


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


def check_safetensors(file: Path) -> set[str]:
    """Check that a safetensors file is as long as its own header says, reading only the header.

    Returns:
        The types of its tensors, as safetensors names them.

    Raises:
        CheckpointError: It is missing or cut short.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "pt") as tensors:
            return {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; {_REMEDY}") from error
    except (SafetensorError, OSError) as error:
        size = file.stat().st_size
        raise CheckpointError(
            f"{file} ({size} bytes) is not a whole safetensors file ({error}); {_REMEDY}"
        ) from error


_REMEDY = "the checkpoint is half-written: download it or save it again"

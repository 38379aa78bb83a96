"""Find and open the file of a trained adapter: a file, a folder, or a hub id."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from videorl.errors import CheckpointError
from videorl.files import hub

FILES = {
    "transformer": "pytorch_lora_weights.safetensors",
    "transformer_2": "pytorch_lora_weights_2.safetensors",
}
"""Part of a pipeline -> the file of its adapter in the folder of an export."""
LOADING: Mapping[str, Mapping[str, Any]] = {"transformer_2": {"load_into_transformer_2": True}}
"""What `load_lora_weights` of a stock pipeline must be told, beside the file."""
_NOISE = {"transformer": "high", "transformer_2": "low"}
"""What names of files, of ComfyUI's users and others, call the experts."""
_PUBLISHED = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""What diffusers and peft call the file in a folder."""
_PEFT_CONFIG = "adapter_config.json"
_HEADER = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in the header of a file, as JSON."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_WHERE = "policy.lora.initial"


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """The content of an adapter's file."""

    path: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any] | None
    """peft's configuration, from the header of the file or from `adapter_config.json` beside it."""


def open_adapter(source: str) -> AdapterFile:
    """Open a trained adapter.

    Args:
        source: A safetensors file, a folder with an adapter of diffusers, peft or a trainer, a hub
            id (`owner/name`), or a file of a hub id (`owner/name/file.safetensors`), each with
            `@revision` after it where another than the main branch is meant.

    Raises:
        CheckpointError: It is not there, is no safetensors file, or the folder holds several.
    """
    path = hub.local_path(source)
    if path.is_dir():
        path = _file_in(path)
    elif not path.is_file():
        path = _from_hub(source)
    if path.suffix in _PICKLES:
        raise CheckpointError(
            f"{path} is a pickle, which may run code: convert it to safetensors first"
        )
    try:
        with safe_open(path, "pt") as opened:
            header = opened.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole safetensors file ({error})") from error
    return AdapterFile(path, tensors, _config(path, header))


def expert_file(source: str, name: str, trained: str) -> str:
    """Return the file of the adapter of one of two experts.

    Args:
        source: A folder with `FILES`, with one file each that is called high and low (noise), or
            with the folders `transformer` and `transformer_2`, as peft needs; where one expert
            alone is trained, also anything that `open_adapter` takes.
        name: `transformer` or `transformer_2`.
        trained: `policy.experts`.

    Raises:
        CheckpointError: There is no adapter of that expert, or only a file of the other.
    """
    path, noise = hub.local_path(source), _NOISE[name]
    if path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        found = [file for file in files if noise in _noises(file)]
        found = found or [folder for folder in [path / name] if folder.is_dir()]
        if len(found) == 1:
            return str(found[0])
        if trained == "both" or any(_noises(file) for file in files):
            raise CheckpointError(
                f"{_WHERE}: {source} must have one adapter of the {noise}-noise expert ({name}), "
                f"but has {_listed(file.name for file in files) or 'no safetensors'}: give a "
                f"folder with {' and '.join(FILES.values())}, or set policy.experts to the expert "
                "that the adapter is of"
            )
    elif trained == "both":
        raise CheckpointError(
            f"{_WHERE}: {source} is not a folder with the adapters of both experts "
            f"({' and '.join(FILES.values())}), which policy.experts=both needs"
        )
    elif _noises(path) - {noise}:
        raise CheckpointError(
            f"{_WHERE}: {source} is by its name the adapter of the other expert, but "
            f"policy.experts={trained} trains the {noise}-noise one"
        )
    return source


def by_noise(source: Path) -> dict[str, Path]:
    """Return the adapters of an export by their expert, `high_noise` and `low_noise`.

    Args:
        source: What `open_adapter` opens, or a folder with the second expert's file of `FILES`;
            only that tells that there are experts. Otherwise the expert is empty.
    """
    if not (source / FILES["transformer_2"]).is_file():
        return {"": source}
    found = {f"{noise}_noise": source / FILES[name] for name, noise in _NOISE.items()}
    return {noise: file for noise, file in found.items() if file.is_file()}


def _noises(file: Path) -> set[str]:
    """Return which experts a file is of, by its name; empty if that does not say."""
    if file.name in FILES.values():
        return {noise for name, noise in _NOISE.items() if FILES[name] == file.name}
    return {noise for noise in _NOISE.values() if noise in file.name.lower()}


def _file_in(folder: Path) -> Path:
    if (folder / FILES["transformer_2"]).is_file():
        raise CheckpointError(
            f"{folder} holds adapters of a model with two transformers (Wan 2.2 A14B), which are "
            "for policy.family=wan_2_2; give a file of it for another use"
        )
    found = [folder / name for name in _PUBLISHED if (folder / name).is_file()]
    found = found or sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(
            f"{folder} holds {len(found)} adapters, {_listed(path.name for path in found)}: "
            "give the file instead of the folder"
        )
    if (folder / "aligned").is_dir():
        raise CheckpointError(f"{folder} is the folder of a run: give {folder / 'aligned'}")
    if (folder / "transformer").is_dir():
        raise CheckpointError(
            f"{folder} holds a whole transformer, not an adapter: use it as part of policy.path"
        )
    if pickles := sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES):
        raise CheckpointError(
            f"{folder} holds only pickles, which may run code ({_listed(pickles)}): convert the "
            "adapter to safetensors first"
        )
    raise CheckpointError(f"{folder} holds no file *.safetensors, so no adapter")


def _from_hub(source: str) -> Path:
    """Return the local copy of an adapter on the hub; without a network, what is cached."""
    name = hub.parse(source)
    if name is None or (name.file and not name.file.endswith(".safetensors")):
        raise CheckpointError(f"there is no file or folder {source}, and it is no hub id either")
    wanted = files_needed(name)
    folder = hub.download(name, wanted, _WHERE)
    return folder / wanted[0]


def files_needed(name: hub.HubId) -> list[str]:
    """Return the files of an adapter on the hub: its tensors first, then what belongs to them.

    Raises:
        CheckpointError: The hub does not know it or does not answer; it has no safetensors file,
            or several.
    """
    names = hub.file_names(name, _WHERE)
    if name.file and name.file not in names:
        where = "what was downloaded before (HF_HUB_OFFLINE=1)" if hub.is_offline() else "the hub"
        raise CheckpointError(f"{_WHERE}: {name.repository} has no file {name.file} in {where}")
    found = [name.file] if name.file else [each for each in _PUBLISHED if each in names]
    found = found or sorted(each for each in names if each.endswith(".safetensors"))
    if len(found) != 1:
        raise CheckpointError(
            f"the hub's {name.repository} has {len(found)} safetensors files"
            + (f" ({_listed(found)}): name one, as {name.repository}/{found[0]}" if found else "")
            + (" among those downloaded before" if hub.is_offline() else "")
        )
    config = str(Path(found[0]).with_name(_PEFT_CONFIG))
    return [*found, *([config] if config in names else [])]


def _config(path: Path, header: Mapping[str, str]) -> dict[str, Any] | None:
    """Return peft's configuration of a file; None if it has none.

    diffusers reads none but its own file's header, so neither does this for such a file.
    """
    beside = path.parent / _PEFT_CONFIG
    try:
        if raw := header.get(_HEADER):
            where = f"the header of {path}"
            packed = json.loads(raw)
            prefix = "transformer."
            config = {k.removeprefix(prefix): v for k, v in packed.items() if k.startswith(prefix)}
        elif beside.is_file() and path.name != _PUBLISHED[0]:
            where = str(beside)
            config = json.loads(beside.read_text(encoding="utf-8"))
        else:
            return None
    except (AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: its configuration is not valid JSON ({error})") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{where} is no configuration of peft: it must be a JSON object")
    return config or None


def _listed(names: Sequence[str] | Any) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")

"""Checkpoints of reward models: whole or sharded, memory-mapped, and loaded strictly."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from videorl.errors import CheckpointError
from videorl.files import hub

if TYPE_CHECKING:
    from tokenizers import Tokenizer

T = TypeVar("T")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SHIPPED = {
    "moving_shapes_reward": Path(__file__).resolve().parents[1] / "worlds/moving_shapes_reward"
}
"""Checkpoints that are part of this repository, by the bare name that recipes use."""
WHOLE = ("model.safetensors", "pytorch_model.bin")
_FOREIGN = re.compile(r"Unsupported global: GLOBAL (\S+)|Unsupported (?:class|operand) (\S+)")
"""What torch says of a pickle with other objects than tensors."""


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is missing or does not hold a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing from the checkpoint") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json`, without its padding and truncation.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise CheckpointError(f"{path} is missing from the checkpoint")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def pretrained_tokenizer(kind: type[T], folder: Path, files: Sequence[str]) -> T:
    """Open a tokenizer class of transformers from a folder that holds at least one of `files`.

    Raises:
        CheckpointError: The files are missing or damaged.
    """
    if not any((folder / name).is_file() for name in files):
        raise CheckpointError(f"{folder} holds neither {' nor '.join(files)}")
    opener: Any = kind
    try:
        return opener.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises bare Exceptions
        raise CheckpointError(f"{folder}: the tokenizer cannot be read: {error}") from error


def read_tensors(path: Path, *, entry: str | None = None) -> dict[str, Tensor]:
    """Return every tensor of a checkpoint by name, memory-mapped: values are read when used.

    Args:
        path: A `.safetensors`, `.pth`, `.pt` or `.bin` file, or a folder in the layout of
            transformers: one of `INDEXES` with its shards, or one of `WHOLE`.
        entry: Key of the tensors in a `.pth` or `.pt` file of a training run, whose other content
            is not used; None = the file holds nothing else.

    Raises:
        CheckpointError: A file or shard is missing, unreadable, or differs from its index.
    """
    if path.is_file():
        return _read_file(path, entry)
    for name in INDEXES:
        if (path / name).is_file():
            return _read_shards(path / name)
    for name in WHOLE:
        if (path / name).is_file():
            return _read_file(path / name)
    raise CheckpointError(f"{path} holds none of {', '.join((*INDEXES, *WHOLE))}")


def load_strictly(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    *,
    source: Path,
    dtype: torch.dtype | None = None,
) -> None:
    """Replace a module's parameters and persistent buffers by `tensors`.

    Memory-mapped tensors stay so unless they are converted. Build the module under
    `empty_parameters()`, as its initial values are not used.

    Args:
        module: Receives the tensors; names and shapes must match exactly.
        tensors: Name as in `module.state_dict()` -> value.
        source: Path to name in errors.
        dtype: Type for all floating-point tensors; None keeps each as stored.

    Raises:
        CheckpointError: A tensor is missing, unexpected, or of another shape.
    """
    check_tensors({k: v.shape for k, v in module.state_dict().items()}, tensors, source)
    converted = {
        name: tensor.to(dtype) if tensor.is_floating_point() and dtype else tensor
        for name, tensor in tensors.items()
    }
    module.load_state_dict(converted, strict=True, assign=True)


def check_tensors(
    wanted: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], source: Path
) -> None:
    """Check that a checkpoint has exactly the tensors of `wanted`, a mapping of name to shape.

    Raises:
        CheckpointError: A tensor is missing, unexpected, or of another shape; up to three of each
            kind are named.
    """
    problems: list[str] = []
    for kind, names in (
        ("missing", sorted(wanted.keys() - tensors.keys())),
        ("unexpected", sorted(tensors.keys() - wanted.keys())),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            problems.append(f"{kind} {', '.join(map(repr, names[:3]))}{more}")
    problems += [
        f"{name!r} has shape {list(tensors[name].shape)}, expected {list(wanted[name])}"
        for name in sorted(wanted.keys() & tensors.keys())
        if list(tensors[name].shape) != list(wanted[name])
    ][:3]
    if problems:
        raise CheckpointError(f"{source} is not the checkpoint it should be: {'; '.join(problems)}")


def find_folder(path: str, patterns: Sequence[str] | None = None) -> Path:
    """Return a checkpoint's folder, downloading it if `path` is a Hugging Face hub id.

    Args:
        path: A folder, a name in `SHIPPED`, or a hub id, perhaps with `@revision`.
        patterns: Globs of the files to download; None = all. Not used for local folders.

    Raises:
        CheckpointError: There is no such folder, and it cannot be downloaded.
    """
    if (folder := SHIPPED.get(path, hub.local_path(path))).is_dir():
        return folder
    name = hub.parse(path)
    if name is None or name.file:
        raise CheckpointError(f"{path} is not a folder, and no hub id (owner/name) either")
    return hub.download(name, patterns, "a reward model's checkpoint")


def empty_parameters() -> Any:
    """Return a context in which new modules have real buffers but parameters without memory."""
    from accelerate import init_empty_weights

    return init_empty_weights(include_buffers=False)


def _read_file(path: Path, entry: str | None = None) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        if foreign := _FOREIGN.search(str(error)):
            raise CheckpointError(
                f"{path} is a pickle that holds {foreign[1]} besides tensors, and is not opened, "
                "as that would run its code: if you trust it, save its tensors alone "
                "(safetensors.torch.save_file) and give that"
            ) from error
        raise _unreadable(path, error) from error
    if entry is not None:
        tensors = tensors.get(entry) if isinstance(tensors, dict) else None
    if not isinstance(tensors, dict) or not all(isinstance(v, Tensor) for v in tensors.values()):
        where = f" under {entry!r}" if entry else ""
        raise CheckpointError(f"{path} does not hold a plain mapping from names to tensors{where}")
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from error


def _read_shards(index: Path) -> dict[str, Tensor]:
    shard_of = read_json(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise CheckpointError(f"{index} has no weight_map")
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shard_of.values())):
        path = index.parent / shard
        if path.name != shard:
            raise CheckpointError(f"{index} names a shard outside of its folder: {shard!r}")
        if not path.is_file():
            names = [name for name, at in shard_of.items() if at == shard]
            raise CheckpointError(
                f"{path} is missing: {index.name} puts {len(names)} tensors there, "
                f"such as {names[0]!r}; download it again"
            )
        tensors |= _read_file(path)
    for name, shard in shard_of.items():
        if name not in tensors:
            raise CheckpointError(
                f"{index.parent / shard} lacks the tensor {name!r}, which {index.name} puts there"
            )
    return tensors


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return CheckpointError(f"{path} cannot be read, it is damaged or incomplete: {reason}")

"""Ranks' slices of flattened tensors, written and read by PyTorch's distributed checkpoints.

Each rank writes a safetensors file of its own; whoever reads takes what it needs of every file, so
that another number of ranks, or another ZeRO stage, can go on. No rank holds what others do.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from videorl.errors import CheckpointError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex
    from torch.distributed.checkpoint.planner import WriteItem


class Slice(Tensor):
    """Some consecutive numbers [n] of a flattened tensor; see `cut`."""

    offset: int
    """Where it begins."""
    total: int
    """Numbers of the whole tensor."""

    def _chunk(self) -> ChunkStorageMetadata:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

        return ChunkStorageMetadata(torch.Size([self.offset]), torch.Size([self.numel()]))

    # What torch.distributed.checkpoint asks of a tensor that it does not know.

    def size(self) -> torch.Size:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the size of the whole, as PyTorch's own sharded tensors do."""
        return torch.Size([self.total])

    def __create_write_items__(self, name: str, _: object) -> list[WriteItem]:
        from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        properties, size = TensorProperties.create_from_tensor(self), torch.Size([self.total])
        data = TensorWriteData(self._chunk(), properties, size)
        index = MetadataIndex(name, torch.Size([self.offset]))
        return [WriteItem(index, WriteItemType.SHARD, tensor_data=data)] if self.numel() else []

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [self._chunk()] if self.numel() else []

    def __get_tensor_shard__(self, _: MetadataIndex) -> Tensor:
        return self.as_subclass(Tensor)


def cut(values: Tensor, offset: int = 0, total: int | None = None) -> Slice:
    """Return a copy on the CPU of what a rank holds of a tensor.

    Args:
        values: Any shape; what lies behind the end of the whole tensor (padding) is left out.
        offset: Where it begins in the flattened tensor.
        total: Numbers of that; None = `values` is all of it.
    """
    flat = values.detach().flatten()
    total = flat.numel() if total is None else total
    flat = flat[: max(total - offset, 0)]
    found: Slice = flat.to("cpu", copy=True).as_subclass(Slice)
    found.offset, found.total = offset, total
    return found


def write_slices(
    folder: Path, slices: Mapping[str, Slice], group: ProcessGroup | None = None
) -> None:
    """Write the slices of all ranks into a folder that all see; every rank calls it.

    Args:
        folder: Made if it is not there.
        slices: Of this rank. What several ranks have is written by one of them.
        group: Of all ranks, able to send from the CPU; None = this is the only process.

    Raises:
        CheckpointError: A rank could not write.
    """
    from torch.distributed import checkpoint

    writer = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)
    _quietly(
        folder,
        checkpoint.save,
        slices,
        storage_writer=writer,
        process_group=group,
        no_dist=not group,
    )


def read_slices(folder: Path, slices: Mapping[str, Slice]) -> None:
    """Fill slices with what any ranks wrote of the same tensors; no other rank is needed.

    Raises:
        CheckpointError: A file is damaged, or a tensor or a part of it is in none.
    """
    from torch.distributed import checkpoint

    reader = checkpoint.HuggingFaceStorageReader(str(folder))
    saved: dict[str, Any] = reader.read_metadata().state_dict_metadata
    for name, own in slices.items():
        held = sum(chunk.sizes[0] for chunk in saved[name].chunks) if name in saved else 0
        if held != own.total:
            raise CheckpointError(f"{folder} has {held} of the {own.total} numbers of {name}")
    _quietly(folder, checkpoint.load, slices, storage_reader=reader, no_dist=True)


def _quietly(folder: Path, do: Any, slices: Mapping[str, Slice], **how: Any) -> None:
    """Call a function of torch.distributed.checkpoint; make its own kind of error ours."""
    from torch.distributed.checkpoint.api import CheckpointException

    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
    try:
        do(dict(slices), **how)
    except CheckpointException as error:  # no Exception, so it would pass whoever waits for one
        causes = {rank: cause for rank, (cause, _) in error.failures.items()}
        raise CheckpointError(f"{folder}: by rank, {causes}") from error

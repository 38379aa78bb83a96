"""Latents, embeddings and pixels in the object store, opened only where they are used.

Latents and embeddings lie there as bytes: who only moves them reads them in place, without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError

from videorl.errors import MediaLostError

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.embedding import Embedding


@dataclass(frozen=True, slots=True)
class Packed:
    """A tensor, or an embedding, as bytes."""

    buffer: npt.NDArray[np.uint8]
    """See `videorl.weights.pack`."""
    names: tuple[str, ...] = ()
    """Of the tensors of an embedding, in order; none = it is a single tensor."""


def pack(medium: Tensor | Embedding) -> Packed:
    """Return the bytes of latents or of an embedding, with all bits as they are."""
    from videorl.embedding import Embedding
    from videorl.weights import pack as packed

    if isinstance(medium, Embedding):
        return Packed(packed(medium.tensors), tuple(medium.tensors))
    return Packed(packed({"": medium}))


def unpack(medium: Any) -> Any:
    """Return what was packed; what was not is returned as it is."""
    if not isinstance(medium, Packed):
        return medium
    from videorl.embedding import Embedding
    from videorl.weights import unpack as unpacked

    tensors = unpacked(medium.buffer)
    if not medium.names:
        return tensors[""]
    return Embedding({name: tensors[name] for name in medium.names})


def opened(refs: Sequence[ObjectRef]) -> list[Any]:
    """Return the objects behind `refs`, unpacked, in order.

    Raises:
        ObjectLostError: An object was lost with the node that held it.
    """
    return [unpack(medium) for medium in ray.get(list(refs))]


def fetch(refs: Sequence[ObjectRef]) -> list[Any]:
    """Do the same as `opened`, with an error of our own.

    Raises:
        MediaLostError: An object was lost with the node that held it.
    """
    try:
        return opened(refs)
    except ObjectLostError as error:
        raise MediaLostError(
            f"a video, latent or embedding is gone from the object store "
            f"({type(error).__name__}): the node that held it has left the cluster"
        ) from error

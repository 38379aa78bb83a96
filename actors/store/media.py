"""Latents and pixels in the object store, opened only where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError

from videorl.errors import MediaLostError


def fetch(refs: Sequence[ObjectRef]) -> list[Any]:
    """Return the objects behind `refs`, in order.

    Raises:
        MediaLostError: An object was lost with the node that held it.
    """
    try:
        return ray.get(list(refs))
    except ObjectLostError as error:
        raise MediaLostError(
            f"a video, latent or embedding is gone from the object store "
            f"({type(error).__name__}): the node that held it has left the cluster"
        ) from error

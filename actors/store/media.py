"""Latents and pixels in the object store, opened only where they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import ObjectRef
from ray.exceptions import ObjectLostError

from actors.placement import beside_driver
from videorl.errors import MediaLostError
from videorl.types import Video


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


def save_videos(files: Mapping[Path, ObjectRef]) -> None:
    """Write videos as mp4 files on the driver's node, in a process of their own."""
    task = ray.remote(_write).options(**beside_driver(), max_retries=3)
    ray.get(task.remote(list(files), *files.values()))


def _write(paths: Sequence[Path], *videos: Video) -> None:
    from videorl.data.video_io import write_mp4

    for path, video in zip(paths, videos, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, video)

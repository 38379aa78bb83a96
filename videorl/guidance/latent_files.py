"""Files of labelled videos' latents: a safetensors file per video, with its scores."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from videorl.errors import DatasetError, VideoError
from videorl.types import Condition, TextAndImage

_TENSOR = "latents"
_METADATA = "video"


@dataclass(frozen=True, slots=True)
class ScoredVideo:
    """The prompt and the scores of a video whose latents are in a file."""

    prompt: str
    scores: Mapping[str, float]
    """Dimension -> score; NaN for a missing score."""
    image: str = ""
    """Absolute path of the picture that the prompt carries; empty = none."""

    @property
    def condition(self) -> Condition:
        """Return what the policy encoded of it."""
        return TextAndImage(self.prompt, self.image) if self.image else self.prompt


def write_latents(path: Path, latents_CTHW: Tensor, video: ScoredVideo) -> None:
    """Write a file atomically."""
    partial = path.with_name(f".{path.name}.partial")
    content = {"prompt": video.prompt, "scores": dict(video.scores), "image": video.image}
    tensors = {_TENSOR: latents_CTHW.detach().cpu().contiguous()}
    save_file(tensors, partial, metadata={_METADATA: json.dumps(content)})
    os.replace(partial, path)


def read_video(path: Path) -> ScoredVideo:
    """Read the prompt and the scores that `write_latents` wrote.

    Raises:
        VideoError: The file is missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return ScoredVideo(**json.loads(file.metadata()[_METADATA]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise VideoError(f"{path} does not hold scored latents: {error}") from error


def read_latents(path: Path) -> Tensor:
    """Read the latents [C, T, H, W] of a file, in float32.

    Raises:
        VideoError: The file or its tensor is missing, or a number is not finite.
    """
    try:
        with safe_open(path, "pt") as file:
            latents_CTHW: Tensor = file.get_tensor(_TENSOR).float()
    except (OSError, SafetensorError) as error:
        raise VideoError(f"{path} does not hold a tensor {_TENSOR!r}: {error}") from error
    if not bool(latents_CTHW.isfinite().all()):
        raise VideoError(f"{path}: the latents hold NaN or infinity")
    return latents_CTHW


def common_shape(paths: Sequence[Path]) -> tuple[int, int, int, int]:
    """Return the shape [C, T, H, W] of the latents in all files, reading only file headers.

    Files that cannot be read are ignored: training skips them later, with a warning.

    Raises:
        DatasetError: Shapes differ or do not have four axes, or no file can be read.
    """
    first: tuple[Path, tuple[int, ...]] | None = None
    for path in dict.fromkeys(paths):
        try:
            with safe_open(path, "pt") as file:
                shape = tuple(file.get_slice(_TENSOR).get_shape())
        except (OSError, SafetensorError):
            continue
        first = first or (path, shape)
        if shape != first[1] or len(shape) != 4:
            raise DatasetError(
                "labelled latents must be [C, T, H, W] of one shape: "
                f"{first[0]} has {list(first[1])}, {path} has {list(shape)}"
            )
    if first is None:
        raise DatasetError(f"none of {len(paths)} files of labelled latents can be read")
    channels, frames, height, width = first[1]
    return channels, frames, height, width

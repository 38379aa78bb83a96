"""Features of VideoMAE (arXiv 2203.12602), on which content-debiased FVD is measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videorl.errors import CheckpointError, ConfigError, VideoError
from videorl.files import hub
from videorl.files.content import content_of
from videorl.measures.loading import LOADING, check_loaded, side_of

if TYPE_CHECKING:
    import torch

_FILES = ("config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json")
_CLASSIFIER = "VideoMAEForVideoClassification"


class VideoMAEFeatures:
    """Turns the first frames of a clip into a vector, as content-debiased FVD does.

    Ge et al. (arXiv 2404.12391): 16 frames, resized to a square with bilinear interpolation (no
    antialiasing, no crop); the feature is the mean of the last layer's tokens, through the norm in
    front of the classifier where the checkpoint has one. Colours are normalised as the checkpoint's
    `preprocessor_config.json` says; without that file they stay in [0, 1], as in their code.
    """

    def __init__(self, checkpoint: str, device: str = "") -> None:
        """Load a checkpoint.

        Args:
            checkpoint: A folder in the layout of transformers, or an id of the Hugging Face hub.
            device: Such as `cuda`; empty = a GPU if there is one.

        Raises:
            CheckpointError: It is not there, is no VideoMAE, or lacks weights.
            ConfigError: There is no such device.
        """
        import torch

        self._device = usable_device(device)
        folder = _folder(checkpoint)
        self._model, self._norm = _load(folder, checkpoint)
        self._model.to(self._device)
        if self._norm is not None:
            self._norm.to(self._device)
        config = self._model.config
        self.num_frames, self.size = int(config.num_frames), int(config.hidden_size)
        self._side = side_of(config, folder)
        mean, deviation = _colours(folder)
        self._mean = torch.tensor(mean, device=self._device).view(3, 1, 1)
        self._deviation = torch.tensor(deviation, device=self._device).view(3, 1, 1)
        self.name = f"VideoMAE {checkpoint}"
        self.digest = content_of(folder).digest

    def of(self, frames_FHW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the feature [D] of `num_frames` frames, RGB uint8 [F, H, W, 3].

        Raises:
            VideoError: It is another number of frames.
        """
        import torch
        from torch.nn.functional import interpolate

        if len(frames_FHW3) != self.num_frames:
            raise VideoError(f"{self.name} reads {self.num_frames} frames, got {len(frames_FHW3)}")
        with torch.no_grad():
            frames = torch.from_numpy(np.ascontiguousarray(frames_FHW3)).to(self._device)
            frames = frames.permute(0, 3, 1, 2).float() / 255.0
            frames = interpolate(
                frames, (self._side, self._side), mode="bilinear", align_corners=False
            )
            frames = (frames - self._mean) / self._deviation
            tokens = self._model(pixel_values=frames[None]).last_hidden_state
            found = tokens.mean(dim=1)
            return (found if self._norm is None else self._norm(found))[0].float().cpu().numpy()


def usable_device(device: str) -> str:
    """Return a device that is there; empty = a GPU if there is one.

    Raises:
        ConfigError: It is not there.
    """
    import torch

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:  # the latter where torch was built without it
        why = str(error).splitlines()[0]
        raise ConfigError(f"--device: {device} cannot be used here ({why}); try cpu") from error
    return device


@contextmanager
def single_precision() -> Iterator[None]:
    """Let networks convolve in single precision on a GPU inside the block, on every thread.

    cuDNN's default is TF32, which rounds to 10 bits; StyleGAN-V's `calc_metrics.py` turns it off.
    """
    if "torch" not in sys.modules:  # no network was loaded
        yield
        return
    from torch.backends import cudnn

    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before


def _folder(checkpoint: str) -> Path:
    place = hub.local_path(checkpoint)
    if place.exists():
        return place
    name = hub.parse(checkpoint)
    if name is None:
        raise CheckpointError(
            f"{checkpoint}: there is no such folder, and it is no id of the Hugging Face hub; "
            "expected a folder with VideoMAE's config.json and model.safetensors"
        )
    return hub.download(name, _FILES, "--video-mae")


def _load(folder: Path, name: str) -> tuple[Any, torch.nn.Module | None]:
    """Return the encoder, and the norm behind the mean of its tokens, if it has one."""
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import VideoMAEForVideoClassification, VideoMAEModel

    config = _read(folder / "config.json")
    if config.get("model_type") != "videomae":
        raise CheckpointError(
            f"{folder / 'config.json'}: expected model_type videomae, got "
            f"{config.get('model_type')!r}; {name} is no VideoMAE of transformers"
        )
    is_classifier = _CLASSIFIER in (config.get("architectures") or [])
    kind: Any = VideoMAEForVideoClassification if is_classifier else VideoMAEModel
    try:
        model, report = kind.from_pretrained(folder, **LOADING)
    except (
        OSError, ValueError, RuntimeError, KeyError, SafetensorError, StrictDataclassError
    ) as error:  # fmt: skip
        raise CheckpointError(f"{folder}: VideoMAE cannot be loaded: {error}") from error
    check_loaded(report, folder, "VideoMAE")
    model.eval().requires_grad_(False)
    return (model.videomae, model.fc_norm) if is_classifier else (model, None)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a mapping")
    return found


def _colours(folder: Path) -> tuple[list[float], list[float]]:
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return [0.0] * 3, [1.0] * 3
    found = _read(path)
    if not found.get("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    try:
        mean, deviation = map(_three, (found["image_mean"], found["image_std"]))
        if min(deviation) <= 0:
            raise ValueError(f"image_std must be > 0, got {deviation}")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: no usable image_mean and image_std ({error})") from error
    return mean, deviation


def _three(values: Any) -> list[float]:
    """Return three numbers, one per colour."""
    found = [float(value) for value in values]
    if len(found) != 3:
        raise ValueError(f"expected three numbers, got {found}")
    return found

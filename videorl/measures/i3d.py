"""Features of I3D (arXiv 1705.07750), on which the classic FVD is measured (arXiv 1812.01717)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from videorl.errors import CheckpointError, VideoError
from videorl.files import hub
from videorl.files.content import content_of
from videorl.measures.video_mae import usable_device

if TYPE_CHECKING:
    from torch import Tensor

FILE = "i3d_torchscript.pt"
"""The TorchScript of I3D on Kinetics-400 that StyleGAN-V published."""
NUM_FRAMES = 16
_SIDE = 224


class I3DFeatures:
    """Turns the first frames of a clip into a vector, as StyleGAN-V's FVD does.

    The TorchScript is called as `src/metrics/frechet_video_distance.py` of StyleGAN-V calls it,
    with `rescale`, `resize` and `return_features`: it resizes frames to 224 × 224 (bilinear,
    whatever their shape), brings them to [-1, 1], and returns the 400 logits before the softmax.
    Skorokhodov et al. (arXiv 2112.14683) found it equal to the network of the original FVD.
    """

    num_frames = NUM_FRAMES

    def __init__(self, place: str, device: str = "") -> None:
        """Load the network.

        Args:
            place: The folder in which `i3d_torchscript.pt` lies, or such a file. It is a program,
                which is run.
            device: Such as `cuda`; empty = a GPU if there is one.

        Raises:
            CheckpointError: It is not there, is no TorchScript, or cannot be called so.
            ConfigError: There is no such device.
        """
        import torch

        file = _file(place)
        self._device = usable_device(device)
        try:
            self._network: Any = torch.jit.load(str(file), map_location=self._device).eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise CheckpointError(
                f"{file}: cannot be loaded as TorchScript: {str(error).strip().splitlines()[0]}"
            ) from error
        try:
            found = self._features(torch.zeros(1, 3, NUM_FRAMES, _SIDE, _SIDE))
        except (RuntimeError, TypeError) as error:
            why = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"{file}: is no I3D that is called with rescale, resize and return_features: {why}"
            ) from error
        if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 1:
            got = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise CheckpointError(f"{file}: expected features [1, D], got {got}")
        self.size = int(found.shape[1])
        self.name = f"I3D {place}"
        self.digest = content_of(file).digest

    def of(self, frames_FHW3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the feature [D] of `num_frames` frames, RGB uint8 [F, H, W, 3].

        Raises:
            VideoError: It is another number of frames.
        """
        import torch

        if len(frames_FHW3) != NUM_FRAMES:
            raise VideoError(f"{self.name} reads {NUM_FRAMES} frames, got {len(frames_FHW3)}")
        frames = torch.from_numpy(np.ascontiguousarray(frames_FHW3)).permute(3, 0, 1, 2)
        return self._features(frames[None].float())[0].float().cpu().numpy()

    def _features(self, frames_B3FHW: Tensor) -> Tensor:
        """Return [B, D] of frames in [0, 255].

        StyleGAN-V passes bytes; PyTorch of that time interpolated no bytes, so the TorchScript has
        to make floats of them first, and is given the same values as floats here.
        """
        import torch

        with torch.no_grad():
            frames = frames_B3FHW.to(self._device)
            return self._network(frames, rescale=True, resize=True, return_features=True)


def _file(place: str) -> Path:
    path = hub.local_path(place)
    file = path if path.is_file() else path / FILE
    if not file.is_file():
        raise CheckpointError(
            f"{file} is not there: the TorchScript of I3D on Kinetics-400 that the authors of "
            "StyleGAN-V publish, 400 features; put it into that folder, or name another with --i3d"
        )
    return file

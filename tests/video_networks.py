"""Small networks in the layouts of published ones that read videos."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SmallI3D(nn.Module):
    """Is called as the published TorchScript of I3D, and reads clips likewise, but 32 × 32."""

    def __init__(self, num_features: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv3d(3, num_features, (3, 16, 16), (2, 16, 16))

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        x = x.float()
        if resize:
            b, c, t, h, w = x.shape
            x = x.permute(0, 2, 1, 3, 4).reshape(b * t, c, h, w)
            x = F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
            x = x.reshape(b, t, c, 32, 32).permute(0, 2, 1, 3, 4)
        if rescale:
            x = x / 255.0 * 2.0 - 1.0
        found = self.first(x).relu().mean(dim=[2, 3, 4])
        return found if return_features else found.softmax(dim=-1)


def save_i3d(folder: Path) -> SmallI3D:
    """Save a network as `i3d_torchscript.pt`, and return it."""
    network = SmallI3D().eval()
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TorchScript, which is no longer recommended
        torch.jit.script(network).save(str(folder / "i3d_torchscript.pt"))
    return network

"""I3D's features, on a small TorchScript that is called as the published one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.video_files import moving_pattern
from tests.video_networks import save_i3d
from videorl.errors import CheckpointError, VideoError
from videorl.measures.i3d import FILE, I3DFeatures


def test_features_are_those_of_the_network_on_clips_in_its_range(tmp_path: Path) -> None:
    network = save_i3d(tmp_path)
    found = I3DFeatures(str(tmp_path), "cpu")
    assert (found.num_frames, found.size) == (16, 3)
    frames = moving_pattern(16, 40, 64)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 127.5 - 1.0  # in [-1, 1], by hand
    pixels = F.interpolate(pixels, (32, 32), mode="bilinear").permute(1, 0, 2, 3)[None]
    with torch.no_grad():
        expected = network.first(pixels).relu().mean(dim=(2, 3, 4))[0]
    assert expected.std() > 1e-3
    assert found.of(frames) == pytest.approx(expected.numpy(), abs=1e-5)
    assert found.of(frames) == pytest.approx(I3DFeatures(str(tmp_path / FILE), "cpu").of(frames))
    with pytest.raises(VideoError, match="reads 16 frames, got 9"):
        found.of(frames[:9])


class Pair(nn.Module):
    """Returns two tensors instead of features."""

    def forward(
        self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return x, x


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no/i3d_torchscript\.pt is not there.*--i3d"):
        I3DFeatures(str(tmp_path / "no"), "cpu")
    (tmp_path / FILE).write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be loaded as TorchScript"):
        I3DFeatures(str(tmp_path), "cpu")
    torch.jit.script(Pair()).save(str(tmp_path / FILE))
    with pytest.raises(CheckpointError, match=r"expected features \[1, D\], got tuple"):
        I3DFeatures(str(tmp_path), "cpu")
    torch.jit.script(nn.Conv3d(3, 2, 3)).save(str(tmp_path / FILE))
    with pytest.raises(CheckpointError, match="is no I3D that is called with rescale"):
        I3DFeatures(str(tmp_path), "cpu")


def test_rescaling_is_asked_for(tmp_path: Path) -> None:
    """Bytes that are not brought to [-1, 1] are another clip to the network."""
    network = save_i3d(tmp_path)
    frames = moving_pattern(16, 32, 32)
    raw = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        other = network(raw, rescale=False, resize=True, return_features=True)[0]
    assert I3DFeatures(str(tmp_path), "cpu").of(frames) != pytest.approx(other.numpy(), rel=0.1)

"""The second stage of Open-Sora's VAE: causal convolutions over the latents of frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class CausalConv3d(nn.Module):
    """A convolution whose frames see themselves and earlier ones."""

    def __init__(self, ins: int, outs: int, size: int, *, stride: int = 1, bias: bool = True):
        super().__init__()
        self._before = size - stride
        self._around = size // 2
        self.conv = nn.Conv3d(ins, outs, size, stride=(stride, 1, 1), bias=bias)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return [B, outs, T / stride, H, W]."""
        around = (self._around,) * 4
        return self.conv(F.pad(x_BCTHW, (*around, self._before, 0)))


class ResBlock(nn.Module):
    """Two convolutions beside a short cut."""

    def __init__(self, ins: int, outs: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(num_groups, ins)
        self.conv1 = CausalConv3d(ins, outs, 3, bias=False)
        self.norm2 = nn.GroupNorm(num_groups, outs)
        self.conv2 = CausalConv3d(outs, outs, 3, bias=False)
        self.conv3 = nn.Identity() if ins == outs else CausalConv3d(ins, outs, 1, bias=False)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return [B, outs, T, H, W]."""
        x = self.conv1(F.silu(self.norm1(x_BCTHW)))
        return self.conv2(F.silu(self.norm2(x))) + self.conv3(x_BCTHW)


def _res_blocks(ins: int, outs: int, count: int, num_groups: int) -> nn.ModuleList:
    widths = [ins, *[outs] * (count - 1)]
    return nn.ModuleList(ResBlock(width, outs, num_groups) for width in widths)


class Encoder(nn.Module):
    """Latents of frames -> moments of latents of clips."""

    def __init__(
        self, channels: int, widths: Sequence[int], downs: Sequence[bool], count: int, groups: int
    ) -> None:
        super().__init__()
        self.conv_in = CausalConv3d(channels, widths[0], 3, bias=False)
        before = [widths[0], *widths[:-1]]
        pairs = list(zip(before, widths, strict=True))
        self.block_res_blocks = nn.ModuleList(_res_blocks(*pair, count, groups) for pair in pairs)
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, width, 3, stride=2) if is_down else nn.Identity()
            for width, is_down in zip(widths[:-1], downs, strict=True)
        )
        self.res_blocks = _res_blocks(widths[-1], widths[-1], count, groups)
        self.norm1 = nn.GroupNorm(groups, widths[-1])
        self.conv2 = CausalConv3d(widths[-1], 2 * channels, 1)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return [B, 2 × channels, T / 4, H, W]."""
        x = self.conv_in(x_BCTHW)
        for level, blocks in enumerate(self.block_res_blocks):
            x = _through(blocks, x)
            if level < len(self.conv_blocks):
                x = self.conv_blocks[level](x)
        return self.conv2(F.silu(self.norm1(_through(self.res_blocks, x))))


class Decoder(nn.Module):
    """Latents of clips -> latents of frames."""

    def __init__(
        self, channels: int, widths: Sequence[int], downs: Sequence[bool], count: int, groups: int
    ) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(channels, widths[-1], 3)
        self.res_blocks = _res_blocks(widths[-1], widths[-1], count, groups)
        # Levels are numbered from the finest, and run through from the coarsest.
        coarser = [*widths[1:], widths[-1]]
        pairs = list(zip(coarser, widths, strict=True))
        self.block_res_blocks = nn.ModuleList(_res_blocks(*pair, count, groups) for pair in pairs)
        self.conv_blocks = nn.ModuleList(
            CausalConv3d(width, 2 * width, 3) if is_up else nn.Identity()
            for width, is_up in zip(widths[1:], downs, strict=True)
        )
        self.norm1 = nn.GroupNorm(groups, widths[0])
        self.conv_out = CausalConv3d(widths[0], channels, 3)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return [B, channels, 4 T, H, W]."""
        x = _through(self.res_blocks, self.conv1(x_BCTHW))
        for level in reversed(range(len(self.block_res_blocks))):
            x = _through(self.block_res_blocks[level], x)
            up = self.conv_blocks[level - 1] if level else nn.Identity()
            if isinstance(up, CausalConv3d):
                # The last axis of a channel says which of the two new frames it belongs to.
                x = up(x).unflatten(1, (-1, 2)).movedim(2, 3).flatten(2, 3)
        return self.conv_out(F.silu(self.norm1(x)))


class TemporalVAE(nn.Module):
    """Compresses time by four; a clip is padded with zeros before its first frame."""

    def __init__(
        self,
        *,
        in_out_channels: int = 4,
        filters: int = 128,
        num_res_blocks: int = 4,
        channel_multipliers: Sequence[int] = (1, 2, 2, 4),
        temporal_downsample: Sequence[bool] = (False, True, True),
        num_groups: int = 32,
    ) -> None:
        super().__init__()
        widths = [filters * each for each in channel_multipliers]
        channels = in_out_channels
        shape = (channels, widths, temporal_downsample, num_res_blocks, num_groups)
        self._stride = 2 ** sum(temporal_downsample)
        self.encoder = Encoder(*shape)
        self.quant_conv = CausalConv3d(2 * channels, 2 * channels, 1)
        self.post_quant_conv = CausalConv3d(channels, channels, 1)
        self.decoder = Decoder(*shape)

    def encode(self, x_BCTHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and logarithm of the variance, each [B, C, ⌈T / 4⌉, H, W]."""
        pad = -x_BCTHW.shape[2] % self._stride
        padded = F.pad(x_BCTHW, (0, 0, 0, 0, pad, 0))
        mean, logvar = self.quant_conv(self.encoder(padded)).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def decode(self, z_BCTHW: Tensor, num_frames: int) -> Tensor:
        """Return [B, C, num_frames, H, W], without the padding before the first frame."""
        x = self.decoder(self.post_quant_conv(z_BCTHW))
        return x[:, :, -num_frames % self._stride :]


def _through(blocks: Any, x: Tensor) -> Tensor:
    for block in blocks:
        x = block(x)
    return x

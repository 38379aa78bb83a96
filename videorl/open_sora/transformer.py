"""STDiT3, the network of Open-Sora 1.2, with the names of the published checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional as F

from videorl.open_sora.blocks import Block, modulated
from videorl.open_sora.embeddings import (
    Captions,
    NumberEmbedder,
    RotaryTime,
    compute_type,
    positions,
)


class PatchEmbedding(nn.Module):
    """Cuts latents into patches, each a token."""

    def __init__(self, channels: int, width: int, patch: Sequence[int]) -> None:
        super().__init__()
        size = (patch[0], patch[1], patch[2])
        self.proj = nn.Conv3d(channels, width, size, stride=size)

    def forward(self, x_BCTHW: Tensor) -> Tensor:
        """Return the tokens [B, T, S, D], those of a frame row by row."""
        # In one order for all that follows, where torch would multiply others in another way
        # without gradient than with.
        return self.proj(x_BCTHW).flatten(3).permute(0, 2, 3, 1).contiguous()


class FinalLayer(nn.Module):
    """Turns tokens into the numbers of their patches."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.scale_shift_table = nn.Parameter(torch.randn(2, width) / width**0.5)
        self.linear = nn.Linear(width, out)

    def forward(
        self, x_BTSD: Tensor, time_BD: Tensor, clean_BD: Tensor, frame_mask_BT: Tensor | None
    ) -> Tensor:
        """Return [B, T, S, out]."""
        x = modulated(x_BTSD, *self._both(time_BD))
        if frame_mask_BT is not None:
            # As published: frames that are only looked at are modulated a second time. Samplers
            # and losses throw them away.
            again = modulated(x, *self._both(clean_BD))
            x = torch.where(frame_mask_BT[:, :, None, None], x, again)
        return self.linear(x)

    def _both(self, time_BD: Tensor) -> list[Tensor]:
        table = self.scale_shift_table.to(time_BD.dtype) + time_BD[:, None]
        return [each[:, None, None] for each in table.unbind(1)]


class STDiT3(ModelMixin, ConfigMixin, PeftAdapterMixin):
    """A transformer that attends to the patches of a frame and to the frames of a patch in turn.

    Arguments are those of the published `config.json`. The published model always normalises
    queries and keys and always returns two halves, of which the second is not used.
    """

    _supports_gradient_checkpointing = True
    _repeated_blocks = ("Block",)

    @register_to_config
    def __init__(  # noqa: PLR0913 - the names of the published configuration
        self,
        *,
        depth: int = 28,
        hidden_size: int = 1152,
        num_heads: int = 16,
        mlp_ratio: float = 4.0,
        patch_size: Sequence[int] = (1, 2, 2),
        in_channels: int = 4,
        caption_channels: int = 4096,
        model_max_length: int = 300,
        input_sq_size: int = 512,
    ) -> None:
        super().__init__()
        width, inner = hidden_size, int(hidden_size * mlp_ratio)
        self.patch_size = (patch_size[0], patch_size[1], patch_size[2])
        self.input_sq_size = input_sq_size
        self.out_channels = 2 * in_channels
        self.rope = RotaryTime(width // num_heads)
        self.x_embedder = PatchEmbedding(in_channels, width, self.patch_size)
        self.t_embedder = NumberEmbedder(width)
        self.fps_embedder = NumberEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = Captions(caption_channels, width, model_max_length)

        def blocks(over_time: bool) -> nn.ModuleList:
            made = (Block(width, num_heads, inner, over_time=over_time) for _ in range(depth))
            return nn.ModuleList(made)

        self.spatial_blocks = blocks(over_time=False)
        self.temporal_blocks = blocks(over_time=True)
        self.final_layer = FinalLayer(width, math.prod(self.patch_size) * self.out_channels)
        self.gradient_checkpointing = False

    def forward(  # noqa: PLR0913 - what the published network takes
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor | None = None,
        *,
        fps: Tensor,
        height: Tensor,
        width: Tensor,
        frame_mask: Tensor | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Return a tuple with [B, 2 × channels, T, H, W] in float32; the first half is velocity.

        Args:
            hidden_states: Noisy latents [B, channels, T, H, W].
            timestep: Times [B], 0 = clean … 1000 = noise.
            encoder_hidden_states: Text embeddings [B, L, caption width].
            encoder_attention_mask: [B or a divisor of B, L], 0 = padding; None = none is. Text that
                is all padding stands for none: the embedding of no text is read instead.
            fps: Frames per second, [B or a divisor of B].
            height: Pixels of the video; the first counts for all.
            width: Likewise.
            frame_mask: [B, T], False = a clean frame that the others may look at; None = all True.
            return_dict: Not supported: must be False.
        """
        assert not return_dict, "STDiT3 returns a tuple"
        dtype = compute_type(self.x_embedder.proj.weight)
        batch, _, frames, rows, columns = hidden_states.shape
        fps_BD = self.fps_embedder(_tiled(fps, batch))
        # Times are rounded like all else that enters.
        time_BD = self.t_embedder(timestep.to(dtype)) + fps_BD
        clean_BD = self.t_embedder(torch.zeros_like(timestep)) + fps_BD
        time_BFD = self.t_block(time_BD)[:, None]
        if frame_mask is not None:
            clean_BFD = self.t_block(clean_BD)[:, None]
            time_BFD = torch.where(frame_mask[:, :, None], time_BFD, clean_BFD)
        x_BTSD = self._patches(hidden_states.to(dtype), float(height[0]), float(width[0]))
        text_BLD, mask_BL = encoder_hidden_states.to(dtype), encoder_attention_mask
        if mask_BL is not None:
            mask_BL = _tiled(mask_BL, batch) != 0
            all_BL = torch.ones_like(mask_BL)
            text_BLD, mask_BL = self.y_embedder.without_text(text_BLD, mask_BL, all_BL)
        text_BLD = self.y_embedder(text_BLD)
        x_BND, num_frames = x_BTSD.flatten(1, 2), x_BTSD.shape[1]
        for block in Blocks(self):
            x_BND = self._run(block, x_BND, num_frames, text_BLD, mask_BL, time_BFD)
        x_BTSD = x_BND.unflatten(1, (num_frames, -1))
        out = self.final_layer(x_BTSD, time_BD, clean_BD, frame_mask)
        return (self._whole(out, rows, columns)[:, :, :frames].float(),)

    def _patches(self, x_BCTHW: Tensor, height_px: float, width_px: float) -> Tensor:
        """Return the tokens [B, T, S, D] with their places; latents are padded at their ends."""
        sizes = zip(x_BCTHW.shape[2:], self.patch_size, strict=True)
        ends = [(-size) % step for size, step in sizes]
        x_BCTHW = F.pad(x_BCTHW, (0, ends[2], 0, ends[1], 0, ends[0]))
        tokens = self.x_embedder(x_BCTHW)
        rows, columns = (x_BCTHW.shape[at + 2] // self.patch_size[at] for at in (1, 2))
        scale = math.sqrt(height_px * width_px) / self.input_sq_size
        places = positions(rows, columns, scale, tokens.shape[-1], tokens.device)
        return tokens + places.to(tokens.dtype)

    def _run(self, block: nn.Module, x: Tensor, *others: Any) -> Tensor:
        if torch.is_grad_enabled() and self.gradient_checkpointing:
            checkpointed: Any = self._gradient_checkpointing_func
            return checkpointed(block, x, *others, self.rope)
        return block(x, *others, self.rope)

    def _whole(self, x_BTSD: Tensor, rows: int, columns: int) -> Tensor:
        """Put patches together to [B, C, T, rows, columns]."""
        step_t, step_h, step_w = self.patch_size
        num_columns = -(-columns // step_w)
        parts = x_BTSD.unflatten(-1, (step_t, step_h, step_w, self.out_channels))
        parts = parts.unflatten(2, (-1, num_columns))  # B T H W t h w C
        whole = parts.permute(0, 7, 1, 4, 2, 5, 3, 6).flatten(6, 7).flatten(4, 5).flatten(2, 3)
        return whole[..., :rows, :columns]


class Blocks(nn.ModuleList):
    """The blocks of an `STDiT3` in the order in which they compute: spatial, temporal, ...

    The network holds them as two lists, of which what is deleted at the end of this one is deleted.
    """

    def __init__(self, network: STDiT3) -> None:
        spatial, temporal = network.spatial_blocks, network.temporal_blocks
        pairs = zip_longest(spatial, temporal)
        super().__init__(block for pair in pairs for block in pair if block is not None)
        self._lists = (spatial, temporal)

    def __delitem__(self, index: int | slice) -> None:
        """Delete the last blocks: `del blocks[number:]`."""
        assert isinstance(index, slice) and (index.stop, index.step) == (None, None)
        super().__delitem__(index)
        spatial, temporal = self._lists
        del spatial[-(-len(self) // 2) :]
        del temporal[len(self) // 2 :]


def _tiled(rows: Tensor, batch: int) -> Tensor:
    """Repeat all rows until there are `batch`."""
    return rows.repeat(batch // len(rows), *[1] * (rows.ndim - 1))

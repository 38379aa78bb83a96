"""Decoding in pieces: the same pixels and the same gradient, in less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.bench.peak_memory import peak_bytes
from tests.tiny import TINY, tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.policies import FAMILIES, load_policy


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_clip_in_pieces_has_the_gradient_of_the_whole_one_and_a_lower_peak(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    policy = load_policy(
        tiny_policy(tiny_checkpoints[family], family),
        tiny_sampling(family, num_frames=33),
        parts=frozenset({"vae"}),
    )
    channels, _, height, width = TINY[family].latents
    draw = torch.Generator().manual_seed(0)
    by_frames = TINY[family].decodes_by_frames
    num_frames = TINY[family].latent_frames(33) if by_frames else 3
    latents = torch.randn(1, channels, num_frames, height, width, generator=draw)

    def decoded(*, in_pieces: bool, tile_px: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
        x0 = latents.clone().requires_grad_()
        pixels = policy.pixels(x0, in_pieces=in_pieces, tile_px=tile_px)
        pixels.square().sum().backward()
        assert x0.grad is not None
        return pixels.detach(), x0.grad

    whole, pieces = decoded(in_pieces=False), decoded(in_pieces=True)
    assert torch.equal(pieces[0], whole[0])
    torch.testing.assert_close(pieces[1], whole[1], rtol=1e-5, atol=1e-6)
    cpu = torch.device("cpu")
    if by_frames:
        peak = peak_bytes(lambda: decoded(in_pieces=True), cpu)
        assert peak < 0.5 * peak_bytes(lambda: decoded(in_pieces=False), cpu)
    if not TINY[family].has_tiles:
        with pytest.raises(ConfigError, match="decodes whole frames only"):
            policy.pixels(latents, tile_px=16)
        return
    latents = torch.randn(1, channels, 3, 2 * height, 2 * width, generator=draw)
    tile_px = 4 * policy._pipeline.vae_scale_factor_spatial  # pyright: ignore
    peak = peak_bytes(lambda: decoded(in_pieces=True, tile_px=tile_px), cpu)
    assert peak < 0.8 * peak_bytes(lambda: decoded(in_pieces=True), cpu)

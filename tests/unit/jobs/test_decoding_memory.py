"""Decoding in pieces: the same pixels and the same gradient, in less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jobs.bench.peak_memory import peak_bytes
from tests.tiny import LATENT_SHAPES, tiny_policy, tiny_sampling
from videorl.policies import FAMILIES, load_policy


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_clip_in_pieces_has_the_gradient_of_the_whole_one_and_a_lower_peak(
    family: str, tiny_checkpoints: dict[str, Path]
) -> None:
    policy = load_policy(
        tiny_policy(tiny_checkpoints[family], family),
        tiny_sampling(num_frames=33),
        parts=frozenset({"vae"}),
    )
    channels, _, height, width = LATENT_SHAPES[family]
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, channels, 17, height, width, generator=draw)

    def decoded(*, in_pieces: bool) -> tuple[torch.Tensor, torch.Tensor]:
        x0 = latents.clone().requires_grad_()
        pixels = policy.pixels(x0, in_pieces=in_pieces)
        pixels.square().sum().backward()
        assert x0.grad is not None
        return pixels.detach(), x0.grad

    whole, pieces = decoded(in_pieces=False), decoded(in_pieces=True)
    assert torch.equal(pieces[0], whole[0])
    torch.testing.assert_close(pieces[1], whole[1], rtol=1e-5, atol=1e-6)
    cpu = torch.device("cpu")
    peak = peak_bytes(lambda: decoded(in_pieces=True), cpu)
    assert peak < 0.5 * peak_bytes(lambda: decoded(in_pieces=False), cpu)

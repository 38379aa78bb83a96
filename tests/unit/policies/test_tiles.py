"""Decoding in tiles: how they are blended, and that pieces of them have the same gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import TINY, tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.policies import FAMILIES, load_policy
from videorl.policies.decoding import tiled
from videorl.protocols import DifferentiablePolicy

LATENTS = 4
"""Of a tile's side, of which neighbours share one."""


@pytest.fixture(params=sorted(name for name in FAMILIES if TINY[name].has_tiles))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def policy(family: str, tiny_checkpoints: dict[str, Path]) -> DifferentiablePolicy:
    config = tiny_policy(tiny_checkpoints[family], family)
    return load_policy(config, tiny_sampling(family), parts=frozenset({"vae"}))


@pytest.fixture
def pixels(policy: DifferentiablePolicy) -> int:
    """Return the pixels of a latent's side."""
    return policy._pipeline.vae_scale_factor_spatial  # pyright: ignore


@pytest.fixture
def latents(family: str) -> Tensor:
    """Return latents of three frames of 7 × 7, three tiles a side; 8 × 8 where 1 is too few."""
    draw = torch.Generator().manual_seed(0)
    side = 8 if family == "ltx_2" else 7
    return torch.randn(1, TINY[family].latents[0], 3, side, side, generator=draw)


def test_neighbours_fade_into_each_other(
    policy: DifferentiablePolicy, latents: Tensor, pixels: int
) -> None:
    """Tiles begin at latents 0, 3 and 6: the fourth latent is shared by the first two."""
    with torch.no_grad():
        found = policy.pixels(latents, tile_px=LATENTS * pixels)
        first = policy.pixels(latents[..., :4, :4])
        below = policy.pixels(latents[..., 3:7, :4])
        right = policy.pixels(latents[..., :4, 3:7])
    assert found.shape[-2:] == (latents.shape[-2] * pixels, latents.shape[-1] * pixels)
    own, end = 3 * pixels, 4 * pixels
    assert torch.equal(found[..., :own, :own], first[..., :own, :own])
    share = torch.arange(pixels) / pixels
    check_faded(
        found[..., own:end, :own],
        first[..., own:, :own],
        below[..., :pixels, :own],
        share[:, None],
    )
    check_faded(found[..., :own, own:end], first[..., :own, own:], right[..., :own, :pixels], share)
    assert torch.equal(found[..., end : 2 * own, :own], below[..., pixels:own, :own])


def check_faded(found: Tensor, a: Tensor, b: Tensor, share: Tensor) -> None:
    """Check pixels that were not cut off at black or white before they were blended."""
    inside = (a > 0) & (a < 1) & (b > 0) & (b < 1)
    assert inside.float().mean() > 0.5
    blended = a * (1 - share) + b * share
    torch.testing.assert_close(found[inside], blended[inside], rtol=1e-5, atol=1e-5)


def test_a_frame_of_one_tile_is_the_whole_one(
    policy: DifferentiablePolicy, latents: Tensor, pixels: int
) -> None:
    vae = policy._pipeline.vae  # pyright: ignore
    before = {name: value for name, value in vars(vae).items() if "til" in name}
    assert not before["use_tiling"]
    with torch.no_grad():
        whole, one = policy.pixels(latents), policy.pixels(latents, tile_px=2 * LATENTS * pixels)
        assert not torch.equal(policy.pixels(latents, tile_px=LATENTS * pixels), whole)
    assert torch.equal(one, whole)
    assert {name: vars(vae)[name] for name in before} == before


def test_pieces_of_tiles_have_the_gradient_of_all_tiles(
    policy: DifferentiablePolicy, latents: Tensor, pixels: int
) -> None:
    def decode(*, in_pieces: bool) -> tuple[Tensor, Tensor]:
        x0 = latents.clone().requires_grad_()
        decoded = policy.pixels(x0, in_pieces=in_pieces, tile_px=LATENTS * pixels)
        (gradient,) = torch.autograd.grad(decoded.square().sum(), x0)
        return decoded.detach(), gradient

    pieces, together = decode(in_pieces=True), decode(in_pieces=False)
    assert torch.equal(pieces[0], together[0])
    torch.testing.assert_close(pieces[1], together[1], rtol=1e-5, atol=1e-6)


def test_tiles_that_cannot_be(policy: DifferentiablePolicy, latents: Tensor, pixels: int) -> None:
    step = LATENTS * pixels
    with pytest.raises(ConfigError, match=f"a multiple of {step} for this model, got {step + 8}"):
        policy.pixels(latents, tile_px=step + 8)
    other = torch.nn.Identity()
    with (
        pytest.raises(ConfigError, match="Identity decodes whole frames only"),
        tiled(other, 16, 4),
    ):
        pass


def test_a_decoder_that_mirrors_its_borders_takes_no_tile_of_one_latent(
    tiny_checkpoints: dict[str, Path],
) -> None:
    config = tiny_policy(tiny_checkpoints["ltx_2"], "ltx_2")
    policy = load_policy(config, tiny_sampling("ltx_2"), parts=frozenset({"vae"}))
    pixels = policy._pipeline.vae_scale_factor_spatial  # pyright: ignore
    latents = torch.randn(1, TINY["ltx_2"].latents[0], 3, 8, 7)
    with pytest.raises(ConfigError, match=f"leaves a tile of {pixels} pixels of sampling.width="):
        policy.pixels(latents, tile_px=LATENTS * pixels)

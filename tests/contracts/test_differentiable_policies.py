"""What every policy family must do for a gradient to flow from pixels to its weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.objectives.refl import predict_clean
from videorl.policies import FAMILIES, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.protocols import DifferentiablePolicy

PROMPTS = ("a red circle moves left", "blue")
SEEDS = (11, 12)


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def load(family: str, tiny_checkpoints: dict[str, Path]) -> Callable[[float], DifferentiablePolicy]:
    def load(guidance_scale: float) -> DifferentiablePolicy:
        config = tiny_policy(tiny_checkpoints[family], family)
        sampling = tiny_sampling(family, guidance_scale=guidance_scale, num_inference_steps=4)
        return load_policy(config, sampling, parts=PARTS, seed=3, trainable=True)

    return load


def whole(policy: DifferentiablePolicy) -> Tensor:
    """Sample both prompts to the end, one by one."""
    negative = encode(policy, [""])[0]
    embeds = encode(policy, PROMPTS)
    return torch.cat(
        [policy.sample(embed, negative, [seed]) for embed, seed in zip(embeds, SEEDS, strict=True)]
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_all_steps_are_the_whole_sample(
    load: Callable[[float], DifferentiablePolicy], guidance_scale: float
) -> None:
    policy = load(guidance_scale)
    negative = encode(policy, [""]) * 2
    latents, times_S = policy.sample_partly(encode(policy, PROMPTS), negative, SEEDS, (4, 4), 4)
    torch.testing.assert_close(latents, whole(policy), rtol=1e-4, atol=1e-5)
    assert len(times_S) == 4
    assert times_S[0] == 1, "it begins with pure noise"
    assert (times_S.diff() < 0).all()


def test_what_is_left_of_the_chain_ends_where_the_sampler_does(
    load: Callable[[float], DifferentiablePolicy],
) -> None:
    """Both tiny checkpoints name deterministic first-order samplers, as DDIM and Euler are."""
    policy, embeds = load(1.0), encode(load(1.0), PROMPTS)
    x_t, times_S = policy.sample_partly(embeds, embeds, SEEDS, (1, 2), 3)
    for number, rest in enumerate((times_S[1:], times_S[2:])):
        clean = predict_clean(
            policy.process,
            lambda x, t_B, number=number: policy.predict(x, t_B, [embeds[number]], "policy"),
            x_t[number : number + 1],
            rest[None],
        )
        expected = whole(policy)[number : number + 1]
        torch.testing.assert_close(clean, expected, rtol=1e-3, atol=1e-4)


def test_pixels_are_those_of_the_video_and_carry_gradient(
    load: Callable[[float], DifferentiablePolicy],
) -> None:
    policy = load(1.0)
    latents = whole(policy).requires_grad_()
    pixels_BF3HW = policy.pixels(latents)
    for pixels_F3HW, video in zip(pixels_BF3HW, policy.decode(latents), strict=True):
        rounded = (pixels_F3HW.detach() * 255).round().permute(0, 2, 3, 1)
        assert (rounded.numpy() == video.frames).all()
    (slope,) = torch.autograd.grad(pixels_BF3HW[0].mean(), latents)
    assert slope[0].abs().sum() > 0
    assert slope[1].abs().sum() == 0, "the other video has no part in it"
    generator = torch.Generator().manual_seed(0)
    towards = 1e-2 * torch.randn(latents.shape, generator=generator)
    with torch.no_grad():
        ahead, behind = (policy.pixels(latents + s * towards)[0].mean() for s in (1, -1))
    assert (ahead - behind).item() / 2 == pytest.approx((slope * towards).sum().item(), rel=0.02)


def test_encoding_is_undone_by_decoding_as_the_vae_itself_does_it(
    family: str, load: Callable[[float], DifferentiablePolicy]
) -> None:
    policy = load(1.0)
    (video,) = policy.decode(whole(policy)[:1])
    if not TINY[family].has_files:
        with pytest.raises(ConfigError, match=f"policy.family={family} cannot learn from videos"):
            policy.encode_video(video)
        return
    vae = policy._pipeline.vae  # pyright: ignore
    with torch.no_grad():
        pixels_13FHW = torch.from_numpy(video.frames).permute(3, 0, 1, 2)[None] / 127.5 - 1
        own = TINY[family].reconstructed(vae, pixels_13FHW)
        found = policy.pixels(policy.encode_video(video)[None])
    expected = (own / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

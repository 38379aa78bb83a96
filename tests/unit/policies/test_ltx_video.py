"""What only LTX-Video has: noise in its decoding, positions by frame rate, a masked prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import LTXPipeline, LTXVideoTransformer3DModel

from tests.families.ltx_video import save_tiny_ltx_video
from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import ConfigError
from videorl.planning.published import PUBLISHED
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.ltx_video import DECODE_NOISE_SCALE, DECODE_TIMESTEP
from videorl.policies.parallel import check_sharing

SEEDS = [11, 12]


def load(folder: Path, **sampling: object) -> Any:
    config = tiny_policy(folder, "ltx_video")
    return load_policy(config, tiny_sampling("ltx_video", **sampling), parts=PARTS, seed=3)


def test_a_decoder_with_a_time_is_given_the_same_noise_for_every_video(tmp_path: Path) -> None:
    """As the stock pipeline decodes, where its generators give it that noise."""
    folder = save_tiny_ltx_video(
        tmp_path, timestep_conditioning=True, decoder_inject_noise=(True, True, True)
    )
    stock = LTXPipeline.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in stock.vae.named_parameters():
            if "per_channel_scale" in name:  # 0 in a new model
                parameter.fill_(0.1)
    stock.vae.save_pretrained(folder / "vae")
    policy = load(folder, guidance_scale=1.0)
    prompt, _ = policy.encode(["a red circle", ""])
    latents = policy.sample(prompt, None, SEEDS)
    noise = torch.randn(1, *latents.shape[1:], generator=torch.Generator().manual_seed(0))
    vae = stock.vae
    x0 = stock._denormalize_latents(latents, vae.latents_mean, vae.latents_std, 0.7)
    x0 = x0 + DECODE_NOISE_SCALE * (noise - x0)
    torch.manual_seed(0)
    with torch.no_grad():
        own = vae.decode(x0, torch.full((2,), DECODE_TIMESTEP), return_dict=False)[0]
    expected = stock.video_processor.postprocess_video(own, "pt")
    before = torch.get_rng_state()
    torch.testing.assert_close(policy.pixels(latents), expected, atol=1e-5, rtol=0)
    assert torch.equal(torch.get_rng_state(), before), "others draw as if nothing was decoded"
    alone = policy.pixels(latents[1:])
    torch.testing.assert_close(alone[0], expected[1], atol=1e-5, rtol=0)
    whole = latents.clone().requires_grad_(), latents.clone().requires_grad_()
    for x, in_pieces in zip(whole, (False, True), strict=True):
        policy.pixels(x, in_pieces=in_pieces).square().sum().backward()
    torch.testing.assert_close(whole[0].grad, whole[1].grad, rtol=1e-5, atol=1e-6)


def test_the_frame_rate_is_told_to_the_transformer(tiny_checkpoints: dict[str, Path]) -> None:
    slow, fast = (load(tiny_checkpoints["ltx_video"], fps=fps) for fps in (8.0, 24.0))
    prompt, _ = slow.encode(["a red circle", ""])
    x_t, t_B = torch.randn(1, 8, 3, 8, 8), torch.tensor([0.5])
    found = [one.predict(x_t, t_B, [prompt], "policy") for one in (slow, fast)]
    assert (found[0] - found[1]).abs().max() > 1e-4


def test_an_embedding_has_the_rows_of_its_tokens_which_are_those_of_the_padded_prompt(
    tiny_checkpoints: dict[str, Path],
) -> None:
    short, long = (
        load(tiny_checkpoints["ltx_video"], max_sequence_length=length) for length in (8, 16)
    )
    embeds = [one.encode(["a red circle"])[0] for one in (short, long)]
    assert embeds[0].num_tokens == embeds[1].num_tokens < 8
    difference = embeds[0]["prompt_embeds"] - embeds[1]["prompt_embeds"]
    assert difference.abs().max() > 1e-3, "T5 reads the padding too"


def test_what_the_pipeline_cannot_do_is_refused(tiny_checkpoints: dict[str, Path]) -> None:
    for changes, said in (
        ({"num_inference_steps": 1}, "num_inference_steps must be 2 or more.* got 1"),
        ({"height": 48}, "multiples of 32 for this model, got 48 and 32"),
        ({"num_frames": 6}, r"num_frames must be a multiple of 2 plus 1.* got 6"),
        ({"flow_shift": 3.0}, "flow_shift must be null"),
    ):
        with pytest.raises(ConfigError, match=said):
            load(tiny_checkpoints["ltx_video"], **changes)


def test_the_published_transformer_has_1_9_billion_parameters() -> None:
    """0.9's configuration, as by diffusers' `convert_ltx_to_diffusers.py`."""
    config = PUBLISHED["lightricks/ltx-video"]["transformer"]
    with torch.device("meta"):
        model: Any = LTXVideoTransformer3DModel.from_config(config)
    assert model.num_parameters() == pytest.approx(1.92e9, rel=0.01)


def test_the_tokens_of_a_published_video_can_be_shared() -> None:
    configs = {"transformer": {"num_attention_heads": 32, "patch_size": 1}, "vae": {}}
    sampling = tiny_sampling("ltx_video", num_frames=161, height=480, width=704)
    check_sharing("ltx_video", configs, sampling, 2, "learner.context_parallel")
    with pytest.raises(ConfigError, match=r"32 heads .* the 6930 tokens .*: one of 1, 2$"):
        check_sharing("ltx_video", configs, sampling, 4, "learner.context_parallel")

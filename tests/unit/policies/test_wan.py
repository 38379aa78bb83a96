"""The Wan policy against the stock diffusers pipeline that it is built on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.wan.pipeline_wan import WanPipeline
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler

from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import SamplingConfig
from videorl.embedding import plain
from videorl.errors import ConfigError
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS

PROMPT = "a red circle  moves left "


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["wan"]


def test_embeddings_are_unpadded(folder: Path) -> None:
    policy = load_policy(tiny_policy(folder), tiny_sampling(), parts=frozenset({"text_encoder"}))
    long, short = policy.encode(["a red circle moves left", "red"])
    assert (long.num_tokens, short.num_tokens) == (6, 2)


def test_the_checkpoint_s_own_solver_is_used(folder: Path, tmp_path: Path) -> None:
    """Wan 2.1 on the hub names UniPC, whose state of one call must not reach the next."""
    solver = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    unipc = copy_with_index(folder, tmp_path, scheduler=["diffusers", "UniPCMultistepScheduler"])
    (unipc / "scheduler").unlink()
    solver.save_pretrained(unipc / "scheduler")
    policy = load_policy(tiny_policy(unipc), tiny_sampling(), parts=PARTS)
    prompt, negative = policy.encode([PROMPT, ""])
    first, again = (policy.sample(prompt, negative, [11]) for _ in range(2))
    stock = WanPipeline.from_pretrained(unipc)
    stock.set_progress_bar_config(disable=True)
    expected = stock(
        prompt=PROMPT,
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
        return_dict=False,
    )[0]
    assert torch.equal(first, expected)
    assert torch.equal(again, expected)


def test_a_process_without_vae_samples_at_the_vae_s_size(folder: Path) -> None:
    alone = load_policy(tiny_policy(folder), tiny_sampling(), parts=frozenset({"transformer"}))
    latents = alone.sample(plain(torch.ones(2, 16)), plain(torch.zeros(1, 16)), [1])
    assert latents.shape == (1, 12, 3, 4, 4)


def test_wan22_ti2v_s_time_per_video_is_its_time_per_token(folder: Path, tmp_path: Path) -> None:
    expanded = copy_with_index(folder, tmp_path, expand_timesteps=True)
    policy = load_policy(tiny_policy(expanded), tiny_sampling(), parts=PARTS)
    shapes: list[torch.Size] = []
    policy.trainable_module().register_forward_pre_hook(
        lambda _, __, named: shapes.append(named["timestep"].shape), with_kwargs=True
    )
    prompt, negative = policy.encode([PROMPT, ""])
    x_t_BCTHW, t_B = policy.sample(prompt, negative, [11]), torch.tensor([0.2])
    stock = WanPipeline.from_pretrained(expanded)
    stock.set_progress_bar_config(disable=True)
    sampled = stock(
        prompt=PROMPT,
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=16,
        generator=torch.Generator().manual_seed(11),
        output_type="latent",
        return_dict=False,
    )[0]
    # Rounding of single precision, which differs between processors.
    torch.testing.assert_close(x_t_BCTHW, sampled, atol=1e-5, rtol=1e-5)
    padded = torch.zeros(1, 16, 16)
    padded[0, : prompt.num_tokens] = prompt["prompt_embeds"]
    with torch.no_grad():
        expected = stock.transformer(x_t_BCTHW, (1000 * t_B).expand(1, 12), padded).sample
    found = policy.predict(x_t_BCTHW, t_B, [prompt], "policy")
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)
    assert {*shapes} == {(1,)}


def test_two_transformers_are_refused(folder: Path, tmp_path: Path) -> None:
    two = copy_with_index(folder, tmp_path, boundary_ratio=0.875)
    with pytest.raises(ConfigError, match="two transformers"):
        load_policy(tiny_policy(two), tiny_sampling(), parts=PARTS)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (tiny_sampling(num_frames=6), "num_frames must be a multiple of 2 plus 1.*got 6"),
        (tiny_sampling(height=24), "multiples of 16.*got 24 and 16"),
    ],
)
def test_sizes_that_the_pipeline_would_round_are_refused(
    folder: Path, sampling: SamplingConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_policy(tiny_policy(folder), sampling, parts=PARTS)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [("int8", "must be auto or one of"), ("float16", "train in bfloat16 or float32")],
)
def test_types_that_cannot_train_are_refused(folder: Path, dtype: str, message: str) -> None:
    config = tiny_policy(folder)
    config.dtype = dtype
    with pytest.raises(ConfigError, match=message):
        load_policy(config, tiny_sampling(), parts=PARTS, trainable=True)


def copy_with_index(folder: Path, target: Path, **changes: object) -> Path:
    """Copy a checkpoint by links, with changes to its model_index.json."""
    for part in folder.iterdir():
        (target / part.name).symlink_to(part)
    index = json.loads((folder / "model_index.json").read_text())
    (target / "model_index.json").unlink()
    (target / "model_index.json").write_text(json.dumps(index | changes))
    return target

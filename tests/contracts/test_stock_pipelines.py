"""Every policy is its stock diffusers pipeline: samples, predictions, noising and exports agree.

`TIMES` is the one thing stated here per family: what t the policy means by a timestep.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from diffusers import DiffusionPipeline
from torch import Tensor

from tests.tiny import TIMES, tiny_policy, tiny_sampling
from videorl.policies import FAMILIES, load_family, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.protocols import Policy

PROMPTS = ["a red circle  moves left ", "blue"]
SEEDS = [11, 12]


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def stock(family: str, tiny_checkpoints: dict[str, Path]) -> Any:
    pipeline = DiffusionPipeline.from_pretrained(tiny_checkpoints[family])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def load(family: str, tiny_checkpoints: dict[str, Path]) -> Callable[..., Policy]:
    def load(*, rank: int = 4, guidance_scale: float = 3.0, trainable: bool = False) -> Policy:
        config = tiny_policy(tiny_checkpoints[family], family, rank=rank)
        sampling = tiny_sampling(guidance_scale=guidance_scale, negative_prompt=PROMPTS[1])
        return load_policy(config, sampling, parts=PARTS, seed=3, trainable=trainable)

    return load


def call(stock: Any, *, guidance_scale: float = 3.0, output_type: str = "latent") -> Any:
    """Sample `SEEDS` from text, as a user of diffusers would."""
    return stock(
        prompt=[PROMPTS[0]] * 2,
        negative_prompt=[PROMPTS[1]] * 2,
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=guidance_scale,
        max_sequence_length=16,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type=output_type,
        return_dict=False,
    )[0]


def sample(policy: Policy) -> Tensor:
    prompt, negative = policy.encode(PROMPTS)
    return policy.sample(prompt, negative, SEEDS)


def channels_first(family: str, latents: Tensor) -> Tensor:
    return latents.transpose(1, 2) if load_family(family).frames_first else latents


def change_weights(policy: Policy) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = policy.weights()
    policy.load_weights(
        {
            name: tensor + torch.randn(tensor.shape, generator=generator) / 4
            for name, tensor in weights.items()
        }
    )


@pytest.mark.parametrize("guidance_scale", [1.0, 3.0])
def test_samples_are_those_of_the_stock_pipeline(
    family: str, stock: Any, load: Callable[..., Policy], guidance_scale: float
) -> None:
    policy = load(guidance_scale=guidance_scale)
    latents = sample(policy)
    expected = call(stock, guidance_scale=guidance_scale)
    assert torch.equal(latents, channels_first(family, expected))
    pixels = call(stock, guidance_scale=guidance_scale, output_type="np")
    for video, frames in zip(policy.decode(latents), pixels, strict=True):
        assert abs(video.frames / 255 - frames).max() <= 0.5 / 255 + 1e-6


def test_a_prompt_that_is_cut_off_is_cut_off_where_the_stock_pipeline_does(
    family: str, stock: Any, tiny_checkpoints: dict[str, Path]
) -> None:
    prompt = " ".join([PROMPTS[0]] * 5)
    sampling = tiny_sampling(long_prompts="truncate", negative_prompt=prompt[5:])
    config = tiny_policy(tiny_checkpoints[family], family)
    policy = load_policy(config, sampling, parts=PARTS, seed=3)
    embeds, negative = policy.encode([prompt, prompt[5:]])
    with torch.no_grad():
        padded, _ = stock.encode_prompt(
            prompt, do_classifier_free_guidance=False, max_sequence_length=16
        )
    assert torch.equal(embeds, padded[0])
    expected = stock(
        prompt=[prompt] * 2,
        negative_prompt=[prompt[5:]] * 2,
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=16,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="latent",
        return_dict=False,
    )[0]
    latents = policy.sample(embeds, negative, SEEDS)
    assert torch.equal(latents, channels_first(family, expected))


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_a_learner_s_prediction_is_the_stock_pipeline_s_own_model_call(
    family: str, stock: Any, load: Callable[..., Policy], rank: int
) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(_: Any, positional: Any, named: dict[str, Any], output: tuple[Tensor]) -> None:
        calls.append((named["hidden_states"], named["timestep"], output[0]))

    stock.transformer.register_forward_hook(record, with_kwargs=True)
    call(stock, guidance_scale=1.0)
    policy = load(rank=rank, trainable=True)
    prompt, _ = policy.encode(PROMPTS)
    assert len(calls) == 3
    for x_t, timestep, expected in calls:
        x_t_BCTHW, t_B = channels_first(family, x_t), TIMES[family](timestep)
        for role in ("policy", "reference"):
            found = policy.predict(x_t_BCTHW, t_B, [prompt, prompt], role)
            torch.testing.assert_close(found, channels_first(family, expected), atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_the_stock_scheduler_walks_the_process(
    family: str, stock: Any, load: Callable[..., Policy], num_steps: int
) -> None:
    """From a perfect prediction, every step must lead to the same video with less noise."""
    process, scheduler = load().process, stock.scheduler
    generator = torch.Generator().manual_seed(2)
    x0, noise = torch.randn(2, 1, 4, 3, 4, 4, generator=generator)
    scheduler.set_timesteps(num_steps)
    times = TIMES[family](scheduler.timesteps.float())
    assert times[0] == 1
    torch.testing.assert_close(process.corrupt(x0, noise, times[:1]), noise)
    for index, timestep in enumerate(scheduler.timesteps):
        t_B = times[index : index + 1]
        prediction = process.target(x0, noise, t_B)
        x_t = process.corrupt(x0, noise, t_B)
        found = scheduler.step(prediction, timestep, x_t, return_dict=False)[0]
        is_last = index == len(times) - 1
        expected = x0 if is_last else process.corrupt(x0, noise, times[index + 1 : index + 2])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_times_for_training_are_in_range_and_uniform(load: Callable[..., Policy]) -> None:
    times = load().process.sample_times(torch.arange(500) / 500)
    assert 0 <= times.min() < 0.01
    assert 0.99 < times.max() <= 1
    torch.testing.assert_close(times.mean(), torch.tensor(0.5), atol=0.01, rtol=0)


def test_stock_diffusers_opens_an_exported_adapter(
    family: str, stock: Any, load: Callable[..., Policy], tmp_path: Path
) -> None:
    policy = load()
    change_weights(policy)
    policy.export(tmp_path)
    base = call(stock)
    stock.load_lora_weights(str(tmp_path))
    adapted = call(stock)
    assert (adapted - base).abs().max() > 0.01
    latents = sample(policy)
    torch.testing.assert_close(channels_first(family, adapted), latents, atol=1e-5, rtol=0)


def test_a_peft_adapter_keeps_its_effect_until_it_is_exported_again(
    family: str, stock: Any, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Of any family, with a scale that alpha / rank is not, and names of peft."""
    config = tiny_policy(tiny_checkpoints[family], family, initial=str(tmp_path / "peft"))
    base = call(stock)
    adapter = peft.LoraConfig(
        r=4, lora_alpha=5, use_rslora=True, target_modules=config.lora.target_modules
    )
    wrapped = peft.get_peft_model(stock.transformer, adapter)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data += torch.randn(parameter.shape, generator=generator) / 10
    wrapped.save_pretrained(str(tmp_path / "peft"))
    expected = call(stock)
    assert (expected - base).abs().max() > 0.01
    sampling = tiny_sampling(negative_prompt=PROMPTS[1])
    policy = load_policy(config, sampling, parts=PARTS, seed=3)
    latents = channels_first(family, expected)
    torch.testing.assert_close(sample(policy), latents, atol=1e-4, rtol=1e-4)
    policy.export(tmp_path / "export")
    again = DiffusionPipeline.from_pretrained(tiny_checkpoints[family])
    again.load_lora_weights(str(tmp_path / "export"))
    torch.testing.assert_close(call(again), expected, atol=1e-4, rtol=1e-4)


def test_stock_diffusers_opens_exported_full_weights(
    stock: Any, load: Callable[..., Policy], tmp_path: Path
) -> None:
    policy = load(rank=0)
    change_weights(policy)
    policy.export(tmp_path)
    opened = type(stock.transformer).from_pretrained(tmp_path, subfolder="transformer")
    live = policy.weights()
    assert opened.state_dict().keys() == live.keys()
    assert all(torch.equal(tensor, live[name]) for name, tensor in opened.state_dict().items())

"""Every policy is its stock diffusers pipeline: samples, predictions, noising and exports agree.

What a family means by a timestep, and how its pipeline is called, is written in `tests/families/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from torch import Tensor

from tests.tiny import TINY, encode, tiny_policy, tiny_sampling
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
    kind = load_family(family).pipeline_class
    kind = getattr(diffusers, kind.__name__, kind)  # not a subclass of ours
    pipeline = kind.from_pretrained(tiny_checkpoints[family])
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def load(family: str, tiny_checkpoints: dict[str, Path]) -> Callable[..., Policy]:
    def load(*, rank: int = 4, guidance_scale: float = 3.0, trainable: bool = False) -> Policy:
        config = tiny_policy(tiny_checkpoints[family], family, rank=rank)
        negative = PROMPTS[1] if guidance_scale > 1 else ""
        sampling = tiny_sampling(family, guidance_scale=guidance_scale, negative_prompt=negative)
        return load_policy(config, sampling, parts=PARTS, seed=3, trainable=trainable)

    return load


@pytest.fixture
def call(family: str, stock: Any) -> Callable[..., Any]:
    """Sample `SEEDS` from text with the stock pipeline, as a user of diffusers would."""

    def call(
        pipeline: Any = None,
        prompts: Sequence[str] = PROMPTS,
        output_type: str = "latent",
        **changes: object,
    ) -> Any:
        pipeline, sampling = pipeline or stock, tiny_sampling(family, **changes)
        found = TINY[family].call(pipeline, sampling, prompts[0], prompts[1], SEEDS, output_type)
        return found if output_type != "latent" else ours(family, pipeline, found)

    return call


def ours(family: str, stock: Any, latents: Tensor) -> Tensor:
    """Return latents of the stock pipeline as [B, C, T, H, W]."""
    return load_family(family).unpacked(stock, latents, tiny_sampling(family))


def sample(policy: Policy) -> Tensor:
    prompt, negative = encode(policy, PROMPTS)
    return policy.sample(prompt, negative, SEEDS)


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
    call: Callable[..., Any], load: Callable[..., Policy], guidance_scale: float
) -> None:
    policy = load(guidance_scale=guidance_scale)
    latents = sample(policy)
    assert torch.equal(latents, call(guidance_scale=guidance_scale))
    pixels = call(guidance_scale=guidance_scale, output_type="np")
    for video, frames in zip(policy.decode(latents), pixels, strict=True):
        assert abs(video.frames / 255 - frames).max() <= 0.5 / 255 + 1e-6


def test_a_prompt_that_is_cut_off_is_cut_off_where_the_stock_pipeline_does(
    family: str, call: Callable[..., Any], tiny_checkpoints: dict[str, Path]
) -> None:
    prompt = " ".join([PROMPTS[0]] * 5)
    sampling = tiny_sampling(family, long_prompts="truncate", negative_prompt=prompt[5:])
    config = tiny_policy(tiny_checkpoints[family], family)
    policy = load_policy(config, sampling, parts=PARTS, seed=3)
    embeds, negative = encode(policy, [prompt, prompt[5:]])
    expected = call(prompts=[prompt, prompt[5:]])
    assert torch.equal(policy.sample(embeds, negative, SEEDS), expected)


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_a_learner_s_prediction_is_the_stock_pipeline_s_own_model_call(
    family: str, stock: Any, call: Callable[..., Any], load: Callable[..., Policy], rank: int
) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(_: Any, positional: Any, named: dict[str, Any], output: tuple[Tensor]) -> None:
        tiny = TINY[family]
        calls.append((tiny.noisy(named), named["timestep"], tiny.predicted(output)))

    for name in TINY[family].transformers:
        getattr(stock, name).register_forward_hook(record, with_kwargs=True)
    call(guidance_scale=1.0)
    policy = load(rank=rank, trainable=True)
    prompt, _ = encode(policy, PROMPTS)
    assert len(calls) == 3
    for x_t, timestep, expected in calls:
        # What comes after the noisy channels is of the prompt's picture.
        x_t_BCTHW = ours(family, stock, x_t)[:, : TINY[family].latents[0]]
        t_B = TINY[family].time(timestep)
        expected = ours(family, stock, expected) * load_family(family).prediction_sign
        for role in ("policy", "reference"):
            found = policy.predict(x_t_BCTHW, t_B, [prompt, prompt], role)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_steps", [1, 4])
def test_the_stock_scheduler_walks_the_process(
    family: str, stock: Any, load: Callable[..., Policy], num_steps: int
) -> None:
    """From a perfect prediction, every step must lead to the same video with less noise."""
    process, scheduler = load().process, stock.scheduler
    generator = torch.Generator().manual_seed(2)
    x0, noise = torch.randn(2, 1, 4, 3, 4, 4, generator=generator)
    shift = {"mu": 0.7} if scheduler.config.get("use_dynamic_shifting") else {}
    scheduler.set_timesteps(max(num_steps, TINY[family].fewest_steps), **shift)
    times = TINY[family].time(scheduler.timesteps.float())
    assert times[0] == 1
    torch.testing.assert_close(process.corrupt(x0, noise, times[:1]), noise)
    for index, timestep in enumerate(scheduler.timesteps):
        t_B = times[index : index + 1]
        prediction = process.target(x0, noise, t_B) * load_family(family).prediction_sign
        x_t = process.corrupt(x0, noise, t_B)
        found = scheduler.step(prediction, timestep, x_t, return_dict=False)[0]
        is_last = index == len(times) - 1
        expected = x0 if is_last else process.corrupt(x0, noise, times[index + 1 : index + 2])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_times_for_training_are_in_range_and_uniform_but_for_their_shift(
    family: str, load: Callable[..., Policy]
) -> None:
    times = load().process.sample_times(torch.arange(500) / 500)
    shift = TINY[family].training_shift
    times = times / (shift - (shift - 1) * times)
    assert 0 <= times.min() < 0.01
    assert 0.99 < times.max() <= 1
    torch.testing.assert_close(times.mean(), torch.tensor(0.5), atol=0.01, rtol=0)


def test_stock_diffusers_opens_an_exported_adapter(
    family: str, stock: Any, call: Callable[..., Any], load: Callable[..., Policy], tmp_path: Path
) -> None:
    policy = load()
    change_weights(policy)
    policy.export(tmp_path)
    base = call()
    TINY[family].load_adapter(stock, tmp_path)
    adapted = call()
    assert (adapted - base).abs().max() > 0.01
    torch.testing.assert_close(adapted, sample(policy), atol=1e-5, rtol=0)


def test_a_peft_adapter_keeps_its_effect_until_it_is_exported_again(
    family: str,
    stock: Any,
    call: Callable[..., Any],
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Of any family, with a scale that alpha / rank is not, and names of peft."""
    config = tiny_policy(tiny_checkpoints[family], family, initial=str(tmp_path / "peft"))
    base = call()
    adapter = peft.LoraConfig(
        r=4, lora_alpha=5, use_rslora=True, target_modules=config.lora.target_modules
    )
    generator, names = torch.Generator().manual_seed(1), TINY[family].transformers
    for part in names:
        wrapped = peft.get_peft_model(getattr(stock, part), adapter)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data += torch.randn(parameter.shape, generator=generator) / 10
        wrapped.save_pretrained(str(tmp_path / "peft" / (part if len(names) > 1 else "")))
    expected = call()
    assert (expected - base).abs().max() > 0.01
    sampling = tiny_sampling(family, negative_prompt=PROMPTS[1])
    policy = load_policy(config, sampling, parts=PARTS, seed=3)
    torch.testing.assert_close(sample(policy), expected, atol=1e-4, rtol=1e-4)
    policy.export(tmp_path / "export")
    again = type(stock).from_pretrained(tiny_checkpoints[family])
    TINY[family].load_adapter(again, tmp_path / "export")
    torch.testing.assert_close(call(again), expected, atol=1e-4, rtol=1e-4)


def test_stock_diffusers_opens_exported_full_weights(
    family: str, stock: Any, load: Callable[..., Policy], tmp_path: Path
) -> None:
    policy = load(rank=0)
    change_weights(policy)
    policy.export(tmp_path)
    live, names = policy.weights(), TINY[family].transformers
    opened = {
        f"{part}." * (len(names) > 1) + name: tensor
        for part in names
        for name, tensor in type(stock.transformer)
        .from_pretrained(tmp_path, subfolder=part)
        .named_parameters()
    }
    assert opened.keys() == live.keys()
    assert all(torch.equal(tensor, live[name]) for name, tensor in opened.items())

"""What only CogVideoX has: two kinds of positions, stochastic solvers, padding of text and time."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLCogVideoX,
    CogVideoXDPMScheduler,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
)
from torch import Tensor

from tests.tiny import save_tiny_cogvideox, tiny_policy, tiny_sampling
from videorl.config import SamplingConfig
from videorl.errors import ConfigError
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.protocols import Policy
from videorl.recipes.reading import RECIPES, load_recipe

PROMPT = "a red circle moves left"


def load(folder: Path, sampling: SamplingConfig | None = None) -> Policy:
    config = tiny_policy(folder, "cogvideox")
    return load_policy(config, sampling or tiny_sampling("cogvideox"), parts=PARTS)


def stock(folder: Path) -> Any:
    pipeline = CogVideoXPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call(pipeline: Any, seeds: list[int], output_type: str = "latent") -> Any:
    return pipeline(
        prompt=[PROMPT] * len(seeds),
        height=16,
        width=16,
        num_frames=5,
        num_inference_steps=3,
        guidance_scale=3.0,
        max_sequence_length=16,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        output_type=output_type,
        return_dict=False,
    )[0]


Recorded = list[tuple[Tensor, Tensor, Tensor]]


def record(pipeline: Any) -> Recorded:
    """Return a list that will hold latents, timesteps and predictions of every model call."""
    calls: Recorded = []

    def keep(_: Any, positional: Any, named: dict[str, Any], output: tuple[Tensor]) -> None:
        calls.append((named["hidden_states"], named["timestep"], output[0]))

    pipeline.transformer.register_forward_hook(keep, with_kwargs=True)
    return calls


@pytest.mark.parametrize("patch", [{}, {"patch_size_t": 2}], ids=["5b", "1.5"])
def test_models_with_rotary_positions_are_their_stock_pipeline(
    tmp_path: Path, patch: dict[str, int]
) -> None:
    # Positions are scaled to the size that a model was trained at: here another one.
    folder = save_tiny_cogvideox(tmp_path, is_5b=True, sample_height=6, **patch)
    policy, pipeline = load(folder), stock(folder)
    calls = record(pipeline)
    prompt, negative = policy.encode([PROMPT, ""])
    latents, expected = policy.sample(prompt, negative, [1]), call(pipeline, [1])
    assert torch.equal(latents, expected.transpose(1, 2))
    # Patches of two latent frames need an even number: one is padding, and not decoded.
    assert latents.shape[2] == (4 if patch else 3)
    pixels = call(pipeline, [1], "np")
    assert abs(policy.decode(latents)[0].frames / 255 - pixels[0]).max() <= 0.5 / 255 + 1e-6
    x_t, timestep, prediction = calls[1]
    found = policy.predict(x_t.transpose(1, 2), (timestep + 1) / 1000, [negative, prompt], "policy")
    torch.testing.assert_close(found, prediction.transpose(1, 2), atol=1e-5, rtol=0)


def test_a_stochastic_solver_draws_from_the_seeds_alone(
    copied: Callable[..., Path],
) -> None:
    folder = copied("model_index.json", scheduler=["diffusers", "CogVideoXDPMScheduler"])
    policy = load(folder)
    prompt, negative = policy.encode([PROMPT, ""])
    together = policy.sample(prompt, negative, [1, 2])
    assert torch.equal(policy.sample(prompt, negative, [1, 2]), together)
    torch.testing.assert_close(
        policy.sample(prompt, negative, [2])[0], together[1], atol=1e-5, rtol=0
    )
    pipeline = stock(folder)
    assert isinstance(pipeline.scheduler, CogVideoXDPMScheduler)
    assert torch.equal(call(pipeline, [1, 2]).transpose(1, 2), together)


def test_padding_is_part_of_an_embedding(tiny_checkpoints: dict[str, Path]) -> None:
    folder = tiny_checkpoints["cogvideox"]
    with torch.no_grad():  # with gradients, attention is another kernel
        expected, _ = stock(folder).encode_prompt("red", None, False, max_sequence_length=16)
    (found,) = load(folder).encode(["red"])
    assert torch.equal(found["prompt_embeds"], expected[0])
    assert found["prompt_embeds"][-1].abs().max() > 0.01


@pytest.fixture
def copied(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy the checkpoint with changes to one of its JSON files."""

    def copy(file: str, **changes: object) -> Path:
        folder = Path(shutil.copytree(tiny_checkpoints["cogvideox"], tmp_path / "copy"))
        content = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(content | changes))
        return folder

    return copy


def test_a_model_that_predicts_the_video_is_refused(copied: Callable[..., Path]) -> None:
    folder = copied("scheduler/scheduler_config.json", prediction_type="sample")
    with pytest.raises(ConfigError, match="prediction_type v_prediction or epsilon"):
        load(folder)


def test_a_scheduler_of_flow_matching_is_refused(copied: Callable[..., Path]) -> None:
    folder = copied("model_index.json", scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    with pytest.raises(ConfigError, match="got a FlowMatchEulerDiscreteScheduler"):
        load(folder)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        # Its VAE would decode 2 latent frames to 4 frames, not to 3.
        (tiny_sampling(num_frames=3), "num_frames must be a multiple of 4 plus 1.*got 3"),
        (tiny_sampling(height=20), "multiples of 8.*got 20 and 16"),
        (tiny_sampling(max_sequence_length=12), "must be 16 for this model.*got 12"),
    ],
)
def test_settings_that_the_pipeline_would_change_are_refused(
    tiny_checkpoints: dict[str, Path], sampling: SamplingConfig, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(tiny_checkpoints["cogvideox"], sampling)


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(function).parameters.items()
    }


@pytest.mark.parametrize("name", sorted(file.stem for file in RECIPES.glob("cogvideox_*.yaml")))
def test_recipes_sample_at_the_published_size(name: str) -> None:
    """Diffusers' defaults are the published models: 49 frames of 480 x 720, at 8 per second."""
    sampling = load_recipe(name).sampling
    network, vae = defaults(CogVideoXTransformer3DModel), defaults(AutoencoderKLCogVideoX)
    stride = 2 ** (len(vae["block_out_channels"]) - 1)
    assert (sampling.height, sampling.width) == (
        stride * network["sample_height"],
        stride * network["sample_width"],
    )
    assert (sampling.num_frames, sampling.fps) == (network["sample_frames"], 8)
    assert sampling.max_sequence_length == network["max_text_seq_length"]
    pipeline = defaults(CogVideoXPipeline.__call__)
    assert sampling.num_inference_steps == pipeline["num_inference_steps"]
    assert sampling.guidance_scale == pipeline["guidance_scale"]

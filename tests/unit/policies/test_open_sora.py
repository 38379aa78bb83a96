"""What only Open-Sora does: no text, sizes, blocks of two kinds, and OnlineVPO's loop with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reward_cases import MODELS, write
from tests.small_runs import small_recipe
from tests.tiny import tiny_policy, tiny_sampling
from videorl.data.archive import read_table
from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.loop import train
from videorl.one_process import local_parts
from videorl.open_sora.flow import time_ratio
from videorl.open_sora.transformer import Blocks, STDiT3
from videorl.policies import load_family, load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.defaults import DEFAULTS
from videorl.recipes.reading import load_recipe
from videorl.run.folder import open_run
from videorl.run.sinks import JsonlSink

LEARNER = frozenset({"transformer"})


@pytest.fixture
def load(tiny_checkpoints: dict[str, Path]) -> Callable[..., Any]:
    def load(parts: frozenset[str] = PARTS, rank: int = 4, **given: Any) -> Any:
        config = tiny_policy(tiny_checkpoints["open_sora"], "open_sora", rank=rank)
        for name in {"compile", "dtype", "attention_backend"} & given.keys():
            setattr(config, name, given.pop(name))
        return load_policy(config, tiny_sampling("open_sora", **given), parts=parts, seed=3)

    return load


def embed(policy: Any, *prompts: str) -> list[Embedding]:
    return policy.encode(prompts or ["a red circle moves left", ""])


def test_without_text_as_much_of_its_embedding_is_read_as_the_prompt_has_tokens(
    load: Callable[..., Any],
) -> None:
    policy = load()
    prompt, none = embed(policy)
    null_LD = policy.trainable_module().y_embedder.y_embedding
    part = Embedding({"prompt_embeds": null_LD[: prompt.num_tokens].clone()})
    whole = Embedding({"prompt_embeds": null_LD.clone()})
    found, same, other = (policy.sample(prompt, each, [1]) for each in (none, part, whole))
    torch.testing.assert_close(found, same, atol=1e-5, rtol=0)
    assert (found - other).abs().max() > 1e-3
    x_t, t_B = found, torch.tensor([0.5])
    alone, all_of_it = (policy.predict(x_t, t_B, [each], "policy") for each in (none, whole))
    torch.testing.assert_close(alone, all_of_it, atol=1e-5, rtol=0)


def test_padding_is_not_read(load: Callable[..., Any]) -> None:
    short, long = load(max_sequence_length=8), load(max_sequence_length=16)
    prompt, none = embed(long)
    found, expected = (policy.sample(prompt, none, [1]) for policy in (short, long))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_network_is_told_the_size_in_pixels_and_the_rate(load: Callable[..., Any]) -> None:
    """Widths of 16 and 18 pixels have the same latents, and yet are not the same to it."""
    narrow, wide, fast = load(), load(width=18), load(fps=24.0)
    prompt, none = embed(narrow)
    latents = narrow.sample(prompt, none, [1])
    inputs = (latents, torch.tensor([0.5]), [prompt], "policy")
    expected = narrow.predict(*inputs)
    for other in (wide, fast):
        found = other.predict(*inputs)
        assert found.shape == expected.shape and (found - expected).abs().max() > 1e-4
    (video,) = wide.decode(wide.sample(prompt, none, [1]))
    assert video.frames.shape == (17, 16, 16, 3), "what does not fill a latent is not decoded"


@pytest.mark.parametrize("num_frames, latent_frames", [(1, 1), (17, 5), (34, 10), (37, 11)])
def test_videos_of_any_length_that_has_times(
    load: Callable[..., Any], num_frames: int, latent_frames: int
) -> None:
    policy = load(num_frames=num_frames, num_inference_steps=1)
    latents = policy.sample(*embed(policy), [1])
    assert latents.shape == (1, 4, latent_frames, 4, 4)
    assert policy.process.shift == pytest.approx(time_ratio(16, 16, num_frames))
    (video,) = policy.decode(latents)
    assert video.frames.shape == (num_frames, 16, 16, 3)
    assert policy.encode_video(video).shape == latents.shape[1:]


@pytest.mark.parametrize(
    "given, message",
    [
        ({"num_frames": 16}, "at least 17"),
        ({"height": 2}, "must be at least 4"),
        ({"max_sequence_length": 17}, "at most 16 for this model"),
        ({"dynamic_guidance": True}, "dynamic_guidance must be false"),
        ({"step_cache": "first_block"}, "cannot put its cache of steps into a STDiT3"),
        ({"vae_tiling": True, "parts": frozenset({"vae"})}, "has no tiles"),
        ({"attention_backend": "_native_math"}, "must be auto for a STDiT3"),
    ],
)
def test_what_it_cannot_do_is_refused(
    load: Callable[..., Any], given: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load(**{"parts": LEARNER, **given})


def test_a_solver_without_a_shift_is_refused() -> None:
    from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

    dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    for scheduler in (DDIMScheduler(), dynamic):
        with pytest.raises(ConfigError, match="needs a checkpoint with a FlowMatchEuler"):
            load_family("open_sora").process(scheduler)


def test_merged_and_compiled_it_samples_the_same(load: Callable[..., Any]) -> None:
    stock = load()
    draw = torch.Generator().manual_seed(1)
    weights = {
        name: tensor + 0.2 * torch.randn(tensor.shape, generator=draw)
        for name, tensor in stock.weights().items()
    }
    prompt, none = embed(stock)

    def sampled(policy: Any) -> Tensor:
        policy.load_weights(weights)
        return policy.sample(prompt, none, [1])

    expected = sampled(stock)
    assert (expected - load().sample(prompt, none, [1])).abs().max() > 1e-3
    for policy in (load(merge_lora=True), load(compile="eager"), load(guidance_in_one_batch=True)):
        torch.testing.assert_close(sampled(policy), expected, atol=1e-4, rtol=0)


def test_the_last_blocks_are_deleted_of_both_lists() -> None:
    network = STDiT3(depth=2, hidden_size=32, num_heads=2, caption_channels=8, model_max_length=4)
    blocks = Blocks(network)
    assert [block.over_time for block in blocks] == [False, True, False, True]
    assert blocks[3] is network.temporal_blocks[1]
    del blocks[3:]
    assert (len(network.spatial_blocks), len(network.temporal_blocks)) == (2, 1)
    assert list(Blocks(network)) == list(blocks)


def test_adapters_reach_every_layer_of_the_blocks() -> None:
    """1,208,872,772 values are published, of which the table of no text is no parameter."""
    with torch.device("meta"):
        network = STDiT3()
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 1_208_872_772
    targets = DEFAULTS["open_sora"].settings["policy.lora.target_modules"]
    reached = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and name.endswith(tuple(f".{t}" for t in targets))
    ]
    assert len(reached) == 56 * 7
    assert sum(name.count("blocks.") for name in reached) == 56 * 7


def test_online_vpo_runs_with_the_reward_of_its_paper(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Sample, decode, score by temporal consistency alone, learn, and move the reference."""
    name = "open_sora_online_vpo"
    recipe = small_recipe(name, tiny_checkpoints, tmp_path / "run")
    folder = write(MODELS["video_score"], tmp_path / "video_score")
    (reward,) = load_recipe(name).rewards
    recipe.rewards = [replace(reward, path=str(folder), options={"max_num_frames": 4})]
    recipe.rewards[0].num_gpus = None
    recipe.reference.interval = 1
    with open_run(recipe) as run:
        parts, progress, _ = local_parts(recipe, run, JsonlSink(run.metrics))
        parts.learner.start()
        train(recipe, parts, progress, lambda: False)
    candidates = read_table(run.archive, "candidates").to_pylist()
    scores = read_table(run.archive, "scores").to_pylist()
    temporal = {
        row["candidate_id"]: row["value"]
        for row in scores
        if row["dimension"].endswith("temporal_consistency")
    }
    assert len(candidates) == len(temporal) == 2 * 2 * 3
    assert len(set(temporal.values())) > 6, "candidates are told apart"
    for row in candidates:
        assert row["total"] == pytest.approx(temporal[row["candidate_id"]])

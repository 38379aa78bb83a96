"""What is served is what `videorl sample` gives, whatever was served before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.serving import aligned_run, small_recipe
from videorl.api import sample
from videorl.config import SamplingConfig
from videorl.data.video_io import encode_mp4
from videorl.errors import CheckpointError, ConfigError, WeightMismatchError
from videorl.guidance.config import LatentRewardConfig
from videorl.guidance.latent_reward import LatentReward, first_layers
from videorl.serving.errors import Failure
from videorl.serving.policy import Served, ServedPolicy, digest_of_adapter
from videorl.serving.requests import VideoTask

TEXTS = ("a large red circle moving left", "a small blue square moving up")
FEW: dict[str, object] = {
    "policy": {"lora": {"rank": 4, "alpha": 4}, "dtype": "float32"},
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("runs")
    return {name: aligned_run(root / name, seed) for seed, name in enumerate(("first", "second"))}


@pytest.fixture(scope="module")
def policy(runs: dict[str, Path]) -> ServedPolicy:
    adapters = {name: str(run / "aligned") for name, run in runs.items()}
    return ServedPolicy(Served(small_recipe(), adapters))


def served(policy: ServedPolicy, task: VideoTask) -> bytes | Failure:
    (found,) = policy.sample([task], policy.read(task.adapter))
    return found


def task(text: str, adapter: str = "base", seed: int = 5, **changes: int | float) -> VideoTask:
    return VideoTask(text, replace(small_recipe().sampling, **changes), seed, adapter)


def test_served_videos_equal_those_of_the_command_bit_for_bit(
    policy: ServedPolicy, runs: dict[str, Path]
) -> None:
    # In this order each adapter comes after another, and the usual size after others.
    served(policy, task(TEXTS[0], "first"))
    served(policy, task(TEXTS[0], height=48, num_frames=5))
    for adapter in ("base", "second", "first", "base"):
        lora = None if adapter == "base" else runs[adapter] / "aligned"
        config = runs["first"] / "config.yaml"
        ((video,),) = sample(TEXTS[1], config, lora=lora, seed=7)
        assert served(policy, task(TEXTS[1], adapter, 7)) == encode_mp4(video), adapter
    assert served(policy, task(TEXTS[1], "first", 7)) != served(policy, task(TEXTS[1], "base", 7))


def test_another_size_and_length_equal_those_of_a_recipe_that_says_so(
    policy: ServedPolicy, runs: dict[str, Path]
) -> None:
    changes = {"height": 48, "width": 32, "num_frames": 5, "num_inference_steps": 2, "fps": 4.0}
    changes["guidance_scale"] = 2.0
    sampling = {**changes, "negative_prompt": "a small blue square moving up"}
    ((video,),) = sample(TEXTS[0], runs["first"] / "config.yaml", seed=3, sampling=sampling)
    asked = task(TEXTS[0], seed=3)
    asked = replace(asked, sampling=replace(asked.sampling, **sampling))
    assert served(policy, asked) == encode_mp4(video)
    assert video.frames.shape == (5, 48, 32, 3)


def test_prompts_in_one_batch_equal_those_alone_up_to_rounding(policy: ServedPolicy) -> None:
    latents = []
    for tasks in ([task(TEXTS[0]), task(TEXTS[1])], [task(TEXTS[0])], [task(TEXTS[1])]):
        policy.sample(tasks, policy.read("base"))
        embeds = [policy._embeds[each.prompt] for each in tasks]
        with torch.no_grad():
            latents.append(policy._latents(tasks, embeds, policy._embeds[""]))
    torch.testing.assert_close(latents[0], torch.cat(latents[1:]), rtol=1e-4, atol=1e-4)


def test_a_prompt_that_cannot_be_encoded_fails_alone(policy: ServedPolicy) -> None:
    tasks = [task(TEXTS[0]), task("red " * 100)]
    good, bad = policy.sample(tasks, policy.read("base"))
    assert isinstance(good, bytes)
    assert isinstance(bad, Failure)
    assert "tokens" in bad.message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"width": 33}, "multiples of 16 for this model"),
        ({"num_frames": 8}, "num_frames must be a multiple of 2 plus 1"),
    ],
)
def test_a_size_that_the_model_cannot_make_is_refused(
    policy: ServedPolicy, changes: dict[str, int], said: str
) -> None:
    sampling = replace(small_recipe().sampling, **changes)
    found = policy.fit(sampling, exactly=True)
    assert isinstance(found, Failure)
    assert said in found.message
    assert "sampling." not in found.message


def test_a_length_in_seconds_becomes_the_nearest_that_the_model_makes(
    policy: ServedPolicy,
) -> None:
    sampling = replace(small_recipe().sampling, num_frames=8)
    found = policy.fit(sampling, exactly=False)
    assert isinstance(found, SamplingConfig)
    assert found == replace(sampling, num_frames=9)


def test_requests_may_guide_by_a_latent_reward(tmp_path: Path) -> None:
    recipe = small_recipe()
    layers, digest = first_layers(recipe.policy, recipe.sampling, 1)
    shape = (12, 5, 8, 8)
    config = LatentRewardConfig(
        "wan", recipe.policy.path, digest, 1, "mean", "head", ("motion",), shape
    )
    LatentReward(layers, config).save(tmp_path)
    policy = ServedPolicy(Served(recipe, latent_reward=str(tmp_path)))
    plain, guided = task(TEXTS[0]), replace(task(TEXTS[0]), guide={"motion": 5.0})
    found = served(policy, guided)
    assert isinstance(found, bytes), found
    assert found != served(policy, plain)
    other = served(policy, replace(task(TEXTS[0], height=48), guide={"motion": 5.0}))
    assert isinstance(other, Failure)
    assert "was trained on latents" in other.message


def test_an_adapter_of_another_model_is_refused(policy: ServedPolicy, tmp_path: Path) -> None:
    served_by = ServedPolicy.__new__(ServedPolicy)
    vars(served_by).update(vars(policy))
    served_by._served = Served(small_recipe("policy.lora.rank=8"), dict(policy._served.adapters))
    with pytest.raises(ConfigError, match="rank 8"):
        served_by.read("first")


def test_an_adapter_that_changed_on_disk_is_refused(tmp_path: Path) -> None:
    folder = str(aligned_run(tmp_path / "run", 0) / "aligned")
    served_by = ServedPolicy(
        Served(small_recipe(), {"run": folder}, {"run": digest_of_adapter(folder)})
    )
    before = served_by.sample([task(TEXTS[0], adapter="run")], served_by.read("run"))
    aligned_run(tmp_path / "run", 1)
    with pytest.raises(CheckpointError, match="changed since the server started"):
        served_by.read("run")
    with pytest.raises(WeightMismatchError):
        served_by.sample([task(TEXTS[0], adapter="other")], {"no": torch.zeros(1)})
    (tmp_path / "run/aligned/pytorch_lora_weights.safetensors").unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        served_by.read("run")
    assert isinstance(before[0], bytes)


def test_a_batch_that_memory_does_not_hold_is_sampled_one_by_one(
    policy: ServedPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = policy._policy.decode

    def small_memory(latents_BCTHW: torch.Tensor) -> object:
        if len(sampled[-1]) > 1 or sampled[-1][0].prompt == TEXTS[1]:
            raise torch.OutOfMemoryError
        return decode(latents_BCTHW)

    sampled: list[Sequence[VideoTask]] = []
    latents = policy._latents

    def noted(tasks: Sequence[VideoTask], *others: Any) -> torch.Tensor:
        sampled.append(tasks)
        return latents(tasks, *others)

    monkeypatch.setattr(policy, "_latents", noted)
    monkeypatch.setattr(policy._policy, "decode", small_memory)
    good, bad = policy.sample([task(TEXTS[0]), task(TEXTS[1])], policy.read("base"))
    assert isinstance(good, bytes)
    assert isinstance(bad, Failure) and bad.code == "video_too_large"

"""What only HunyuanVideo has: two encoders and their limits, a template, two kinds of guidance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideoTransformer3DModel

from tests.families.hunyuan_video import save_tiny_hunyuan_video
from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import CheckpointError, ConfigError, PromptError
from videorl.planning.published import PUBLISHED
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.parallel import check_sharing
from videorl.sampling.canary import difference

ENCODERS = frozenset({"text_encoder"})


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints["hunyuan_video"]


def load(folder: Path, parts: frozenset[str] = PARTS, family: str = "hunyuan_video", **s: Any):
    settings = tiny_sampling(family)
    for name, value in s.items():
        setattr(settings, name, value)
    return load_policy(tiny_policy(folder, family), settings, parts=parts, seed=3)


def test_an_embedding_has_the_rows_of_its_tokens_and_no_mask(folder: Path) -> None:
    (embedding,) = load(folder, ENCODERS).encode(["a red circle"])
    assert embedding.num_tokens == 4, "three words, and the end of the template"
    assert embedding.tensors.keys() == {"prompt_embeds", "pooled_prompt_embeds"}
    assert embedding["pooled_prompt_embeds"].shape == (16,)


def test_each_encoder_s_limit_is_named(folder: Path) -> None:
    fits, long = "a" * 75, "a" * 76  # CLIP has a token for each letter here, and two more
    policy = load(folder, ENCODERS)
    policy.encode([fits])
    with pytest.raises(PromptError, match=r"has 78 tokens, but the CLIP text encoder reads 77: sh"):
        policy.encode([long])
    with pytest.raises(PromptError, match=r"19 tokens, but sampling.max_sequence_length is 16"):
        policy.encode(["a " * 17])
    cut = load(folder, ENCODERS, long_prompts="truncate")
    assert cut.encode(["a " * 80])[0].num_tokens == 16


def test_a_tokenizer_that_would_shift_the_prompt_is_refused(folder: Path, tmp_path: Path) -> None:
    save_tiny_hunyuan_video(tmp_path)
    file = tmp_path / "tokenizer/tokenizer.json"
    text = file.read_text().replace("|\\\\s*[\\\\r\\\\n]+|", "|")  # line breaks, one by one
    assert text != file.read_text()
    file.write_text(text)
    with pytest.raises(CheckpointError, match=r"tokenizer .* makes \d+ tokens .* counts on 95"):
        load(tmp_path, ENCODERS)


def test_learners_predict_with_the_guidance_that_was_sampled_with(folder: Path) -> None:
    low, high = (load(folder, guidance_scale=scale) for scale in (1.0, 6.0))
    draw = torch.Generator().manual_seed(0)
    given = torch.randn(1, 4, 2, 4, 4, generator=draw), torch.tensor([0.5]), low.encode(["a"])
    seen: list[torch.Tensor] = []
    high.trainable_module().register_forward_pre_hook(
        lambda _, __, named: seen.append(named["guidance"]), with_kwargs=True
    )
    found, other = high.predict(*given, "policy"), low.predict(*given, "policy")
    assert seen[0].tolist() == [6000.0]
    assert (found - other).abs().max() > 1e-4


def test_guidance_that_would_be_ignored_is_refused(
    folder: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"negative_prompt must be empty .*true_guidance_scale"):
        load(folder, negative_prompt="blurry", true_guidance_scale=1.0)
    with pytest.raises(ConfigError, match=r"true_guidance_scale must be 1 for this model, .* 3"):
        load(tiny_checkpoints["wan"], family="wan", true_guidance_scale=3.0)
    save_tiny_hunyuan_video(tmp_path, guidance_embeds=False)
    with pytest.raises(ConfigError, match=r"guidance_scale must be 1 .* got 6"):
        load(tmp_path)
    load(tmp_path, guidance_scale=1.0)


def test_guidance_in_one_batch_and_a_step_cache_keep_the_sample(tmp_path: Path) -> None:
    save_tiny_hunyuan_video(tmp_path, num_layers=2)
    stock = load(tmp_path)
    prompt, negative = stock.encode(["a red circle", "blue"])
    expected = stock.sample(prompt, negative, [1, 2])
    ways: tuple[dict[str, Any], ...] = (
        {"guidance_in_one_batch": True},
        {"step_cache": "first_block", "step_cache_threshold": 1e-9},
    )
    for changes in ways:
        found = load(tmp_path, **changes).sample(prompt, negative, [1, 2])
        assert difference(found, expected) < 1e-5
    assert difference(stock.sample(prompt, prompt, [1, 2]), expected) > 1e-3, "guidance is on"


def test_the_blocks_of_one_stream_go_with_those_that_are_not_kept(tmp_path: Path) -> None:
    save_tiny_hunyuan_video(tmp_path, num_layers=2)
    config = tiny_policy(tmp_path, "hunyuan_video", rank=0)
    policy: Any = load_policy(config, tiny_sampling("hunyuan_video"), parts=PARTS)
    given = torch.zeros(1, 4, 2, 4, 4), torch.tensor([0.5]), policy.encode(["a"])
    seen: list[torch.Tensor] = []
    policy.blocks()[0].register_forward_hook(lambda *hook: seen.append(hook[2][0]))
    policy.predict(*given, "policy")
    policy.keep_layers(1)
    assert torch.equal(policy.features(*given), seen[0])
    assert len(policy.trainable_module().single_transformer_blocks) == 0


def test_videos_cannot_be_shared() -> None:
    with pytest.raises(ConfigError, match="HunyuanVideoTransformer3DModel has no `_cp_plan`"):
        check_sharing("hunyuan_video", {}, tiny_sampling("hunyuan_video"), 2, "learner.x")


def test_the_published_transformer_has_13_billion_parameters() -> None:
    """By diffusers' `convert_hunyuan_video_to_diffusers.py`, "HYVideo-T/2-cfgdistill"."""
    with torch.device("meta"):
        settings = PUBLISHED["hunyuanvideo-community/hunyuanvideo"]["transformer"]
        model = HunyuanVideoTransformer3DModel(**settings)
    assert model.num_parameters() == pytest.approx(12.82e9, rel=0.002)

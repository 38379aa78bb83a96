"""What only HunyuanVideo 1.5 has: words in quotes, a guider, no callbacks, no adapter loading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLHunyuanVideo15
from diffusers.models.autoencoders.autoencoder_kl_hunyuanvideo15 import HunyuanVideo15AttnBlock

from tests.families.hunyuan_video_1_5 import GLYPHS, save_tiny_hunyuan_video_1_5
from tests.tiny import tiny_policy, tiny_sampling
from videorl.errors import CheckpointError, ConfigError, PromptError
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.policies.hunyuan_video_1_5 import (
    GLYPH_TOKENS,
    HunyuanVideo15,
    causal_mask,
    make_masks_by_frames,
)
from videorl.policies.parallel import check_sharing
from videorl.sampling.canary import difference

FAMILY = "hunyuan_video_1_5"
ENCODERS = frozenset({"text_encoder"})


@pytest.fixture
def folder(tiny_checkpoints: dict[str, Path]) -> Path:
    return tiny_checkpoints[FAMILY]


def load(folder: Path, parts: frozenset[str] = PARTS, **changes: object) -> Any:
    config = tiny_policy(folder, FAMILY)
    return load_policy(config, tiny_sampling(FAMILY, **changes), parts=parts, seed=3)


def test_an_embedding_has_the_rows_of_both_encoders_tokens(folder: Path) -> None:
    policy = load(folder, ENCODERS)
    plain, quoting = policy.encode(["a red circle", 'a red "ab"'])
    assert plain["prompt_embeds"].shape == (8, 16), "three words, and the end of the template"
    assert plain["prompt_embeds_2"].shape == (0, 16)
    assert quoting["prompt_embeds_2"].shape == (12, 16), 'the bytes of `Text "ab". `, and an end'
    arguments = HunyuanVideo15().text_arguments(
        [plain, quoting], tiny_sampling(FAMILY), torch.bfloat16, torch.device("cpu")
    )
    assert arguments["prompt_embeds_mask"].sum(1).tolist() == [8, len(quoting["prompt_embeds"])]
    assert arguments["prompt_embeds_mask_2"].sum(1).tolist() == [0, 12]
    with pytest.raises(
        PromptError, match=r"20 tokens, but the encoder of quoted words reads 16: sh"
    ):
        policy.encode(['a "aaaaaaaaaa"'])


def test_quoted_words_are_sampled_as_by_the_stock_pipeline(folder: Path) -> None:
    """One step, as the pipeline's own two encoders and its own call have it."""
    from diffusers import HunyuanVideo15Pipeline

    prompt, settings = 'a "ab"', {"num_inference_steps": 1, "guidance_scale": 1.0}
    policy = load(folder, **settings)
    stock: Any = HunyuanVideo15Pipeline.from_pretrained(folder)
    (embedding,) = policy.encode([prompt])
    found = policy.sample(embedding, None, [5])
    size = {"num_frames": 5, "height": 16, "width": 16, "num_inference_steps": 1}
    assert stock.tokenizer_2_max_length == GLYPH_TOKENS
    stock.tokenizer_max_length, stock.tokenizer_2_max_length = 16, GLYPHS
    stock.guider.guidance_scale = 1.0
    expected = stock(
        prompt, generator=torch.Generator().manual_seed(5), output_type="latent", **size
    )
    assert torch.equal(found, expected.frames)
    (other,) = policy.encode(["a ab"])
    assert (policy.sample(other, None, [5]) - found).abs().max() > 1e-5


def test_what_cannot_be_read_is_refused(folder: Path, tmp_path: Path) -> None:
    save_tiny_hunyuan_video_1_5(tmp_path)
    file = tmp_path / "tokenizer/tokenizer.json"
    text = file.read_text()
    file.write_text(text.replace("|\\\\s*[\\\\r\\\\n]+|", "|"))  # line breaks, one by one
    config = tmp_path / "tokenizer/tokenizer_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps({**settings, "padding_side": "left"}))
    with pytest.raises(CheckpointError, match=r"makes \d+ tokens .*left, but .* 108 and on the ri"):
        load(tmp_path, ENCODERS)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["guider"][1] = "SkipLayerGuidance"
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"guides by SkipLayerGuidance, but sampling.guidance_"):
        load(tmp_path)
    with pytest.raises(ConfigError, match=r"width must be multiples of 4 .* got 16 and 18"):
        load(folder, width=18)
    with pytest.raises(ConfigError, match="HunyuanVideo15Transformer3DModel has no `_cp_plan`"):
        check_sharing(FAMILY, {}, tiny_sampling(FAMILY), 2, "learner.x")


def test_guidance_in_one_batch_keeps_the_sample(folder: Path) -> None:
    policy = load(folder, num_inference_steps=1)
    prompt, negative = policy.encode(["a red circle", "blue"])
    expected = policy.sample(prompt, negative, [1])
    fast = load(folder, num_inference_steps=1, guidance_in_one_batch=True)
    assert difference(fast.sample(prompt, negative, [1]), expected) < 1e-5
    assert difference(policy.sample(prompt, prompt, [1]), expected) > 1e-3, "guidance is on"


def test_steps_end_where_they_are_no_longer_wanted(folder: Path) -> None:
    policy = load(folder, guidance_scale=1.0)
    prompts = policy.encode(["a red circle"]) * 2
    calls: list[object] = []
    policy.trainable_module().register_forward_hook(lambda *_: calls.append(0))
    found, times = policy.sample_partly(prompts, [], [1, 2], [1, 2], 2)
    assert len(calls) == 2
    assert len(times) == 3
    assert "step" not in vars(policy._pipeline.scheduler)
    whole, _ = policy.sample_partly(prompts, [], [1, 2], [3, 3], 3)
    torch.testing.assert_close(whole, policy.sample(prompts[0], None, [1, 2]))
    assert (found - whole).abs().amax((1, 2, 3, 4)).min() > 1e-3


def test_the_masks_of_the_vae_are_those_of_diffusers(folder: Path) -> None:
    stock: Any = HunyuanVideo15AttnBlock.prepare_causal_attention_mask
    for frames, batch_size in ((1, None), (3, 2)):
        given = frames, 4, torch.bfloat16, torch.device("cpu")
        assert torch.equal(causal_mask(*given, batch_size), stock(*given, batch_size=batch_size))
    vae = AutoencoderKLHunyuanVideo15.from_pretrained(folder, subfolder="vae")
    make_masks_by_frames(vae)
    changed = [one for one in vae.modules() if "prepare_causal_attention_mask" in vars(one)]
    attending = [one for one in vae.modules() if hasattr(one, "prepare_causal_attention_mask")]
    assert len(changed) == len(attending) == 2, "one in the encoder and one in the decoder"

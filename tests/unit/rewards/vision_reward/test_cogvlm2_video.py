"""CogVLM2-Video: sizes, positions, the shared prefix, and strict loading."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from videorl.errors import CheckpointError
from videorl.rewards.checkpoints import empty_parameters, read_tensors
from videorl.rewards.vision_reward import cogvlm2_video
from videorl.rewards.vision_reward.cogvlm2_video import CogVLM2Video

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_multi_query_heads": 2,
    "vocab_size": 50,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "vision_config": {
        "hidden_size": 16,
        "image_size": 224,
        "in_channels": 3,
        "intermediate_size": 24,
        "layer_norm_eps": 1e-6,
        "num_heads": 2,
        "num_hidden_layers": 1,
        "num_positions": 257,
        "patch_size": 14,
    },
}


def test_real_sizes_have_the_published_number_of_parameters() -> None:
    real = TINY | {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_multi_query_heads": 8,
        "vocab_size": 128256,
        "vision_config": TINY["vision_config"]
        | {
            "hidden_size": 1792,
            "intermediate_size": 15360,
            "num_heads": 16,
            "num_hidden_layers": 63,
        },
    }
    with empty_parameters():
        model = CogVLM2Video(real)
    assert sum(p.numel() for p in model.parameters()) == 12_507_530_496


def test_all_patches_of_a_frame_share_a_position() -> None:
    # bos, then per frame: begin, 3 patches, end, and a label of one or two tokens.
    positions = cogvlm2_video.prefix_positions(5, [1, 2])
    assert positions.tolist() == [0, 1, 2, 2, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9]


def test_a_question_sees_the_prefix_and_itself_only() -> None:
    mask = cogvlm2_video.shared_prefix_mask(torch.tensor([2, 1, 2]))
    assert mask.int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


@torch.inference_mode()
def test_one_pass_equals_a_plain_causal_pass_per_question() -> None:
    torch.manual_seed(0)
    model = CogVLM2Video(TINY).eval()
    for parameter in model.parameters():
        parameter.normal_(std=0.3)
    frames_FLD = model.encode_frames(torch.randn(3, 3, 224, 224))
    labels = [[3], [4, 5], [6]]
    generator = torch.Generator().manual_seed(1)
    suffixes = [
        torch.randint(50, (length,), generator=generator).tolist() for length in (7, 1, 12, 30, 2)
    ]
    together = model.answer_logits(model.prefix(frames_FLD, 1, labels), suffixes)
    alone = [_plain_pass(model, frames_FLD, labels, suffix) for suffix in suffixes]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-4, rtol=0)
    assert together.std(dim=0).mean() > 0.1  # the questions do matter


def _plain_pass(
    model: CogVLM2Video, frames_FLD: torch.Tensor, labels: list[list[int]], suffix: list[int]
) -> torch.Tensor:
    """Run one question the plain way: token by token lists, positions by rule, a causal mask."""
    embed = model.language.embed_tokens
    embeds, positions = [embed(torch.tensor(1))], [0]
    for frame_LD, label in zip(frames_FLD, labels, strict=True):
        for row, vector in enumerate(frame_LD):
            is_later_patch = 2 <= row < len(frame_LD) - 1
            positions.append(positions[-1] + (not is_later_patch))
            embeds.append(vector)
        for token in label:
            positions.append(positions[-1] + 1)
            embeds.append(embed(torch.tensor(token)))
    for token in suffix:
        positions.append(positions[-1] + 1)
        embeds.append(embed(torch.tensor(token)))
    hidden = model.language(
        inputs_embeds=torch.stack(embeds)[None],
        attention_mask=torch.ones(1, len(embeds), dtype=torch.long),
        position_ids=torch.tensor([positions]),
    ).last_hidden_state
    return model.lm_head(hidden[0, -1])


def test_weights_are_loaded_as_stored_and_positions_stay_exact(vision_reward_folder: Path) -> None:
    model = cogvlm2_video.load(vision_reward_folder)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    # Heads of 8 have 4 frequencies, base 500,000.
    wanted = torch.tensor([500_000 ** (-i / 4) for i in range(4)])
    torch.testing.assert_close(model.language.rotary_emb.inv_freq, wanted)


def test_a_missing_shard_is_named(vision_reward_folder: Path, tmp_path: Path) -> None:
    for file in vision_reward_folder.iterdir():
        if file.name != "model-00002-of-00002.safetensors":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors is missing"):
        cogvlm2_video.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vocab_size": 128000}, r"'lm_head.weight' has shape \[128256, 32\], expected \[128000"),
        ({"num_multi_query_heads": 4}, "query_key_value.weight' has 64 rows, expected 96"),
        ({"num_attention_heads": 8, "num_multi_query_heads": 4}, "other rotary frequencies"),
        ({"num_hidden_layers": 3}, "missing 'language.layers.2"),
        ({"num_hidden_layers": 1}, "unexpected 'language.layers.1"),
        ({"vision_config": {}}, "vision_config lacks hidden_size"),
    ],
)
def test_a_checkpoint_of_other_sizes_is_refused(
    vision_reward_folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    for file in vision_reward_folder.glob("model*"):
        (tmp_path / file.name).symlink_to(file)
    config = json.loads((vision_reward_folder / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        cogvlm2_video.load(tmp_path)


def test_another_rotary_base_is_refused(vision_reward_folder: Path) -> None:
    with empty_parameters():
        model = CogVLM2Video(json.loads((vision_reward_folder / "config.json").read_text()))
    tensors = read_tensors(vision_reward_folder)
    name = "model.layers.1.self_attn.rotary_emb.inv_freq"
    tensors[name] = torch.tensor([math.pow(10_000, -i / 4) for i in range(4)])
    with pytest.raises(CheckpointError, match=r"layers.1.*other rotary frequencies"):
        cogvlm2_video.our_layout(tensors, model.llama_config, vision_reward_folder)

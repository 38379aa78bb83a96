"""An untrained Qwen2-VL of 0.5 M parameters, from which a VideoReward of Moving Shapes is trained.

The folder has the layout of Qwen/Qwen2-VL-2B-Instruct. Only the tokenizer is special: each fixed
passage of VideoReward's conversation is one token instead of hundreds.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from videorl.rewards.video_reward.prompt import REWARD_TOKENS, TEMPLATE
from videorl.worlds.grammar import scenes

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
    "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip
_CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Writes what Qwen2-VL's own template writes for one question about one video."""


def save_reward_base(
    folder: Path, seed: int = 0, *, width: int = 96, layers: int = 3, vision_depth: int = 1
) -> Path:
    """Write an untrained base model: configuration, weights, tokenizer and chat template.

    Args:
        folder: Is created; files in it are replaced.
        seed: Seed of the weights.
        width: Width of the language model and the vision tower, a multiple of 32.
        layers: Number of layers of the language model.
        vision_depth: Number of layers of the vision tower.
    """
    from transformers import Qwen2VLForConditionalGeneration

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        config = _config(tokenizer, width, layers, vision_depth)
        Qwen2VLForConditionalGeneration(config).save_pretrained(str(folder))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": _CHAT_TEMPLATE}))
    return folder


def _tokenizer() -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(_SPECIAL),
        show_progress=False,
    )
    tokenizer.train_from_iterator((scene.text for scene in scenes()), trainer)
    passages = re.split("|".join(map(re.escape, (*REWARD_TOKENS, "{text_prompt}"))), TEMPLATE)
    passages += ["system\nYou are a helpful assistant.", "user\n", "assistant\n"]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in passages])
    return tokenizer


def _config(tokenizer: Tokenizer, width: int, layers: int, vision_depth: int) -> Any:
    from transformers import Qwen2VLConfig

    ids = {name: tokenizer.token_to_id(f"<|{name}|>") for name in ("im_end", "endoftext")}
    heads = width // 32
    configure: Any = Qwen2VLConfig
    return configure(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        # With the usual 0.02 the picture has no effect on the reward at this width.
        initializer_range=width**-0.5,
        rope_scaling={"type": "mrope", "mrope_section": [4, 6, 6]},
        bos_token_id=ids["endoftext"],
        eos_token_id=ids["im_end"],
        vision_start_token_id=tokenizer.token_to_id("<|vision_start|>"),
        vision_end_token_id=tokenizer.token_to_id("<|vision_end|>"),
        image_token_id=tokenizer.token_to_id("<|image_pad|>"),
        video_token_id=tokenizer.token_to_id("<|video_pad|>"),
        vision_config={
            "initializer_range": width**-0.5,
            "depth": vision_depth,
            "embed_dim": width,
            "hidden_size": width,
            "num_heads": heads,
            "mlp_ratio": 2,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
        },
    )

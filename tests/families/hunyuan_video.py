"""A tiny HunyuanVideo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests.families.tiny_family import TinyFamily, stock_options
from videorl.settings.model import SamplingConfig
from videorl.worlds.grammar import words

_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama 3's, by which the pipeline's template has as many tokens as with the published one."""


def llama_tokenizer() -> Any:
    """Return a tokenizer that splits as Llama 3's; words that the grammar lacks are one token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<pad>", "<|begin_of_text|>", "<|eot_id|>"]
    special += ["<|start_header_id|>", "<|end_header_id|>"]
    known = [*special, *words(), *(f" {word}" for word in words())]
    vocabulary = {token: number for number, token in enumerate(known)}
    made: Any = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Split(Regex(_PIECES), "isolated")
    first = "<|begin_of_text|>"
    made.post_processor = TemplateProcessing(
        single=f"{first} $A", special_tokens=[(first, vocabulary[first])]
    )
    made.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", padding_side="right"
    )


def clip_tokenizer() -> Any:
    """Return CLIP's tokenizer with letters for tokens."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    known = [*letters, *(f"{letter}</w>" for letter in letters)]
    known += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(known)}, merges=[])


def save_tiny_hunyuan_video(folder: Path, **transformer: Any) -> Path:
    """Write a HunyuanVideo checkpoint: two heads of 16, latents [4, 2, 4, 4] for 5 frames 16×16.

    Args:
        folder: Where to.
        transformer: Settings of the transformer that differ.
    """
    from diffusers import (
        AutoencoderKLHunyuanVideo,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideoPipeline,
        HunyuanVideoTransformer3DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

    settings: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 1,
        "num_single_layers": 1,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 16,
        "pooled_projection_dim": 16,
        "rope_axes_dim": (4, 6, 6),
    }
    vae: dict[str, Any] = {
        "down_block_types": ("HunyuanVideoDownBlock3D",) * 3,
        "up_block_types": ("HunyuanVideoUpBlock3D",) * 3,
        "block_out_channels": (8, 8, 8),
        "latent_channels": 4,
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "scaling_factor": 0.7,
        "spatial_compression_ratio": 4,
        "temporal_compression_ratio": 4,
    }
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
    }
    llama, clip = llama_tokenizer(), clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = HunyuanVideoPipeline(
            tokenizer=llama,
            text_encoder=LlamaModel(
                LlamaConfig(
                    vocab_size=len(llama),
                    num_hidden_layers=3,  # its output is read two layers before the end
                    num_key_value_heads=2,
                    pad_token_id=llama.pad_token_id,
                    **sizes,
                )
            ).eval(),
            tokenizer_2=clip,
            text_encoder_2=CLIPTextModel(
                CLIPTextConfig(
                    vocab_size=len(clip),
                    num_hidden_layers=1,
                    bos_token_id=clip.bos_token_id,
                    eos_token_id=clip.eos_token_id,
                    **sizes,
                )
            ).eval(),
            vae=AutoencoderKLHunyuanVideo(**vae).eval(),
            transformer=HunyuanVideoTransformer3DModel(**{**settings, **transformer}).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        )
    pipeline.save_pretrained(str(folder))
    return folder


def _options(sampling: SamplingConfig) -> dict[str, Any]:
    return {**stock_options(sampling), "true_cfg_scale": sampling.true_guidance_scale}


TINY = TinyFamily(
    save_tiny_hunyuan_video,
    (4, 2, 4, 4),
    lambda timestep: timestep / 1000,
    settings={"guidance_scale": 6.0, "true_guidance_scale": 3.0},
    options=_options,
    guidance="true_guidance_scale",
)

"""Build and save a tiny but genuine Wan text-to-video checkpoint for Moving Shapes.

`save_checkpoint` writes an ordinary diffusers folder, which `WanPipeline.from_pretrained` and every
part of this project open like any other.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch

from videorl.worlds.grammar import words

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
    from transformers import PreTrainedTokenizerBase, UMT5EncoderModel

LATENT_CHANNELS = 12
LATENT_SHAPE = (LATENT_CHANNELS, 5, 8, 8)
"""Latents [C, T, H, W] of a 9-frame 32×32 clip: temporal stride 2, spatial stride 4."""


class Components(TypedDict):
    """The parts of a `WanPipeline`, by the names of its constructor."""

    tokenizer: PreTrainedTokenizerBase
    text_encoder: UMT5EncoderModel
    vae: AutoencoderKLWan
    scheduler: FlowMatchEulerDiscreteScheduler
    transformer: WanTransformer3DModel


def build_components(
    seed: int,
    *,
    width: int = 128,
    layers: int = 5,
    vae_width: int = 16,
    text_width: int = 64,
) -> Components:
    """Make untrained components; the same seed gives the same weights.

    Args:
        seed: Seed of every initial weight.
        width: Width of the transformer, a multiple of 32.
        layers: Number of transformer blocks.
        vae_width: Channels of the VAE at the highest resolution.
        text_width: Width of the text embeddings, a multiple of 16.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tokenizer = build_tokenizer()
        return Components(
            tokenizer=tokenizer,
            text_encoder=_text_encoder(len(tokenizer), text_width),
            vae=_vae(vae_width),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            transformer=_transformer(width, layers, text_width),
        )


def build_tokenizer() -> PreTrainedTokenizerBase:
    """Return a T5 tokenizer that has the words of the grammar; every other word is `<unk>`."""
    from transformers import T5Tokenizer

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces = [(f"▁{word}", -1.0) for word in words()]
    return T5Tokenizer(vocab=special + pieces, extra_ids=0)


def set_latent_statistics(vae: AutoencoderKLWan, mean: list[float], std: list[float]) -> None:
    """Store the per-channel latent mean and standard deviation where `WanPipeline` reads them."""
    vae.register_to_config(latents_mean=mean, latents_std=std)


def save_checkpoint(
    components: Components, path: str | Path, dtype: torch.dtype = torch.float16
) -> None:
    """Write a folder that `WanPipeline.from_pretrained(path)` opens, with weights in `dtype`."""
    from diffusers import WanPipeline

    parts: dict[str, Any] = dict(components)
    for name in ("text_encoder", "vae", "transformer"):
        # `nn.Module.to` on a copy: diffusers' own `to` warns about layers it keeps in float32,
        # which it casts back when it loads, and the live weights must keep their precision.
        parts[name] = torch.nn.Module.to(copy.deepcopy(parts[name]), dtype)
    WanPipeline(**parts).save_pretrained(str(path))


def _text_encoder(vocab_size: int, width: int) -> UMT5EncoderModel:
    # Frozen at its random initial weights: a wide enough random embedding already separates the
    # twenty words, and the transformer's own text projection learns the rest.
    from transformers import UMT5Config, UMT5EncoderModel

    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=16,
        d_ff=2 * width,
        num_layers=1,
        num_heads=width // 16,
        dropout_rate=0.0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return UMT5EncoderModel(config).eval()


def _vae(width: int) -> AutoencoderKLWan:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan(
        base_dim=width,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=2,
        scale_factor_spatial=4,
    ).eval()


def _transformer(width: int, layers: int, text_width: int) -> WanTransformer3DModel:
    from diffusers import WanTransformer3DModel

    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=width // 32,
        attention_head_dim=32,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=text_width,
        freq_dim=64,
        ffn_dim=3 * width,
        num_layers=layers,
        cross_attn_norm=True,
    ).eval()

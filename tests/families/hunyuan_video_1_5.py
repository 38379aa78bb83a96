"""A tiny HunyuanVideo 1.5."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.families.tiny_family import TinyFamily
from videorl.settings.model import SamplingConfig
from videorl.worlds.grammar import words

_PIECES = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen 2.5's, by which the pipeline's template has as many tokens as with the published one."""
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' + message.content }}<|im_end|>"
    "{{ '\n' }}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
)


GLYPHS = 16
"""Tokens of quoted words in tests, instead of 256."""


def qwen_tokenizer() -> Any:
    """Return a tokenizer that splits as Qwen's; words that the grammar lacks are one token."""
    from tokenizers import Regex, Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<pad>", "<|im_start|>", "<|im_end|>"]
    known = [*special, *words(), *(f" {word}" for word in words())]
    vocabulary = {token: number for number, token in enumerate(known)}
    made: Any = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = Split(Regex(_PIECES), "isolated")
    made.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", pad_token="<pad>", padding_side="right"
    )
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def save_tiny_hunyuan_video_1_5(folder: Path, *, num_layers: int = 1) -> Path:
    """Write a HunyuanVideo 1.5 checkpoint of width 32, latents [4, 3, 4, 4] for 5 frames 16×16."""
    from diffusers import (
        AutoencoderKLHunyuanVideo15,
        ClassifierFreeGuidance,
        FlowMatchEulerDiscreteScheduler,
        HunyuanVideo15Pipeline,
        HunyuanVideo15Transformer3DModel,
    )
    from transformers import ByT5Tokenizer, T5Config, T5EncoderModel
    from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel

    settings: dict[str, Any] = {
        "in_channels": 9,
        "out_channels": 4,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": num_layers,
        "num_refiner_layers": 1,
        "mlp_ratio": 2.0,
        "text_embed_dim": 16,
        "text_embed_2_dim": 16,
        "image_embed_dim": 8,
        "rope_axes_dim": (4, 6, 6),
        "task_type": "t2v",
    }
    vae: dict[str, Any] = {
        "latent_channels": 4,
        "block_out_channels": (8, 8, 8),
        "layers_per_block": 1,
        "spatial_compression_ratio": 4,
        "temporal_compression_ratio": 2,
        "scaling_factor": 0.7,
    }
    from videorl.policies.hunyuan_video_1_5 import HunyuanVideo15

    # Of these, of any size of model, layers of 2048 × 2048 make most of the work, in vain.
    HunyuanVideo15.glyph_tokens = GLYPHS
    tokenizer = qwen_tokenizer()
    qwen = Qwen2_5_VLTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,  # its output is read two layers before the end
        num_attention_heads=2,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]},
    )
    byt5 = T5Config(vocab_size=384, d_model=16, d_kv=16, d_ff=32, num_layers=1, num_heads=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = HunyuanVideo15Pipeline(
            tokenizer=tokenizer,
            text_encoder=Qwen2_5_VLTextModel(qwen).eval(),
            tokenizer_2=ByT5Tokenizer(),
            text_encoder_2=T5EncoderModel(byt5).eval(),
            vae=AutoencoderKLHunyuanVideo15(**vae).eval(),
            transformer=HunyuanVideo15Transformer3DModel(**settings).eval(),
            scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
            guider=ClassifierFreeGuidance(guidance_scale=6.0),
        )
    pipeline.save_pretrained(str(folder))
    return folder


class _Tiny(TinyFamily):
    def call(
        self,
        pipeline: Any,
        sampling: SamplingConfig,
        prompt: str,
        negative: str,
        seeds: Sequence[int],
        output_type: str = "latent",
    ) -> Any:
        """Set what a user of diffusers sets on the pipeline, and sample."""
        pipeline.guider.guidance_scale = sampling.guidance_scale
        pipeline.tokenizer_2_max_length = GLYPHS
        pipeline.vae.enable_slicing()  # decodes only one video at a time
        pipeline.tokenizer_max_length = sampling.max_sequence_length
        return super().call(pipeline, sampling, prompt, negative, seeds, output_type)

    def load_adapter(self, pipeline: Any, folder: Path) -> None:
        """Open an exported adapter with the stock transformer: the pipeline cannot."""
        pipeline.transformer.load_lora_adapter(
            str(folder), weight_name="pytorch_lora_weights.safetensors"
        )


def options(sampling: SamplingConfig) -> dict[str, Any]:
    """Return what the stock pipeline is called with beside prompts and noise."""
    names = ("num_frames", "height", "width", "num_inference_steps")
    return {name: getattr(sampling, name) for name in names}


TINY = _Tiny(
    save_tiny_hunyuan_video_1_5,
    (4, 3, 4, 4),
    lambda timestep: timestep / 1000,
    options=options,
    decodes_by_frames=False,
    end_tokens=5,
    unread=("to_add_out", "ff_context"),  # of the text after the last block
)

"""The `config.json` values of published models, and how small they are in a trial on a CPU.

The models with these values have random weights: they cost what the published ones cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from videorl.planning.published import PUBLISHED

Settings = dict[str, Any]

WAN: Mapping[str, Settings] = PUBLISHED["wan-ai/wan2.1-t2v-1.3b-diffusers"]
COGVIDEOX: Mapping[str, Settings] = PUBLISHED["thudm/cogvideox-2b"]
"""Part -> its configuration, as the plan has it."""

VIDEO_REWARD: Settings = {
    "model_type": "qwen2_vl",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "tie_word_embeddings": True,
    "vocab_size": 151936,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "vision_config": {
        "depth": 32,
        "embed_dim": 1280,
        "mlp_ratio": 4,
        "num_heads": 16,
        "in_chans": 3,
        "hidden_size": 1536,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}
"""Qwen/Qwen2-VL-2B-Instruct, on which VideoReward is built."""
VISION_REWARD: Settings = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_multi_query_heads": 8,
    "vocab_size": 128256,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
    "vision_config": {
        "hidden_size": 1792,
        "image_size": 224,
        "in_channels": 3,
        "intermediate_size": 15360,
        "layer_norm_eps": 1e-6,
        "num_heads": 16,
        "num_hidden_layers": 63,
        "num_positions": 257,
        "patch_size": 14,
    },
}
"""THUDM/VisionReward-Video, on CogVLM2-Video."""
VIDEO_SCORE: Settings = {
    "model_type": "idefics2",
    "image_token_id": 32001,
    "pad_token_id": 0,
    "text_config": {
        "model_type": "mistral",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32003,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 32768,
    },
    "vision_config": {
        "model_type": "idefics2",
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": 980,
        "patch_size": 14,
    },
    "perceiver_config": {
        "model_type": "idefics2",
        "hidden_size": 4096,
        "rms_norm_eps": 1e-5,
        "resampler_n_latents": 64,
        "resampler_depth": 3,
        "resampler_n_heads": 16,
        "resampler_head_dim": 96,
        "num_key_value_heads": 4,
    },
}
"""TIGER-Lab/VideoScore, on Idefics2-8B."""

_TINY_LANGUAGE: Settings = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
TINY: dict[str, Settings] = {
    "wan": {"num_attention_heads": 2, "attention_head_dim": 12, "ffn_dim": 32, "num_layers": 1}
    | {"text_dim": 16, "freq_dim": 16},
    "wan_vae": {"base_dim": 8, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    "cogvideox": {
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "time_embed_dim": 16,
        "text_embed_dim": 16,
        "num_layers": 1,
        "sample_width": 4,
        "sample_height": 4,
        "sample_frames": 9,
        "max_text_seq_length": 16,
    },
    "cogvideox_vae": {
        "block_out_channels": (8, 8, 8, 8),
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "sample_height": 32,
        "sample_width": 32,
    },
    "video_reward": _TINY_LANGUAGE
    | {
        "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]},
        "vision_config": VIDEO_REWARD["vision_config"]
        | {"depth": 1, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "hidden_size": 32},
    },
    "vision_reward": _TINY_LANGUAGE
    | {
        "num_multi_query_heads": 2,
        "vision_config": VISION_REWARD["vision_config"]
        | {"hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "num_hidden_layers": 1},
    },
    "video_score": {
        "text_config": VIDEO_SCORE["text_config"] | _TINY_LANGUAGE | {"num_key_value_heads": 2},
        "vision_config": VIDEO_SCORE["vision_config"]
        | {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
        | {"num_attention_heads": 4},
        "perceiver_config": VIDEO_SCORE["perceiver_config"]
        | {"hidden_size": 32, "resampler_n_latents": 4, "resampler_depth": 1}
        | {"resampler_n_heads": 4, "resampler_head_dim": 8, "num_key_value_heads": 2},
    },
}
"""What differs in a trial on a CPU."""

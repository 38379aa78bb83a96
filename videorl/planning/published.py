"""Copies of the published configurations of known models, so that they are planned offline.

The hub was not at hand. Transformers agree with those in diffusers' own conversion scripts
(`convert_wan_to_diffusers.py`, `convert_cogvideox_to_diffusers.py`,
`convert_hunyuan_video_to_diffusers.py`, `convert_hunyuan_video1_5_to_diffusers.py`,
`convert_ltx2_to_diffusers.py`; those of LTX-Video and Mochi are the defaults of their classes; of
HunyuanVideo 1.5, LTX-Video and Mochi float32 files are assumed, of LTX-2 half precision and Gemma 3
of 12 billion parameters, and the tokens that were added to HunyuanVideo 1.5's ByT5 are guessed),
the VAE of Wan 2.2 with copies of its `config.json` in public repositories;
`tests/unit/jobs/test_gpu_benchmark.py` holds the parameter counts of two. Only what decides sizes
is kept: latent statistics are not.
"""

from __future__ import annotations

from typing import Any

from videorl.planning.published_others import (
    HUNYUAN_VIDEO,
    LTX_2,
    LTX_VIDEO,
    MOCHI,
    OPEN_SORA,
    T5,
    hunyuan_video_1_5,
)

_WAN = {
    "patch_size": [1, 2, 2],
    "attention_head_dim": 128,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": 4096,
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
}
_WAN_VAE = {
    "base_dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
}
_WAN_22_VAE = {
    **_WAN_VAE,
    "base_dim": 160,
    "decoder_base_dim": 256,
    "z_dim": 48,
    "is_residual": True,
    "in_channels": 12,
    "out_channels": 12,
    "patch_size": 2,
    "scale_factor_temporal": 4,
    "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48,
    "latents_std": [1.0] * 48,
}
_UMT5 = {**T5, "vocab_size": 256384, "relative_attention_max_distance": 128}
_CLIP_H = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "projection_dim": 1024,
}
_COGVIDEOX = {
    "attention_head_dim": 64,
    "in_channels": 16,
    "out_channels": 16,
    "time_embed_dim": 512,
    "text_embed_dim": 4096,
    "sample_width": 90,
    "sample_height": 60,
    "sample_frames": 49,
    "patch_size": 2,
    "temporal_compression_ratio": 4,
    "max_text_seq_length": 226,
}
_COGVIDEOX_VAE = {
    "block_out_channels": [128, 256, 256, 512],
    "down_block_types": ["CogVideoXDownBlock3D"] * 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 4,
    "latent_channels": 16,
    "layers_per_block": 3,
    "temporal_compression_ratio": 4,
}


def _wan(heads: int, width: int, layers: int, shift: float, **others: Any) -> dict[str, Any]:
    sizes = {"num_attention_heads": heads, "ffn_dim": width, "num_layers": layers}
    scheduler = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    transformer = {**_WAN, **sizes, **others.get("transformer", {})}
    return {
        "index": {
            "_class_name": "WanPipeline",
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            **others.get("index", {}),
        },
        "transformer": transformer,
        "transformer_2": transformer,  # read where the index names it
        "vae": others.get("vae", _WAN_VAE),
        "text_encoder": _UMT5,
        "scheduler": scheduler,
        "stored": {
            "transformer": 4,
            "transformer_2": 4,
            "vae": 4,
            "text_encoder": 2,
            **others.get("stored", {}),
        },
    }


def _wan_i2v(shift: float) -> dict[str, Any]:
    sizes = {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}
    index = {
        "_class_name": "WanImageToVideoPipeline",
        "image_encoder": ["transformers", "CLIPVisionModel"],
        "image_processor": ["transformers", "CLIPImageProcessor"],
    }
    found = _wan(40, 13824, 40, shift, transformer=sizes, index=index)
    return {**found, "image_encoder": _CLIP_H, "stored": {**found["stored"], "image_encoder": 2}}


def _cogvideox(heads: int, layers: int, shift: float, is_rotary: bool) -> dict[str, Any]:
    sizes = {"num_attention_heads": heads, "num_layers": layers}
    return {
        "index": {
            "_class_name": "CogVideoXPipeline",
            "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
        },
        "transformer": {**_COGVIDEOX, **sizes, "use_rotary_positional_embeddings": is_rotary},
        "vae": _COGVIDEOX_VAE,
        "text_encoder": {**T5, "vocab_size": 32128},
        "scheduler": {
            "clip_sample": False,
            "prediction_type": "v_prediction",
            "rescale_betas_zero_snr": True,
            "snr_shift_scale": shift,
            "timestep_spacing": "trailing",
        },
        "stored": {"transformer": 2, "vae": 2, "text_encoder": 2},
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "hunyuanvideo-community/hunyuanvideo": HUNYUAN_VIDEO,
    "hunyuanvideo-community/hunyuanvideo-1.5-diffusers-480p_t2v": hunyuan_video_1_5(640, 5.0),
    "hunyuanvideo-community/hunyuanvideo-1.5-diffusers-720p_t2v": hunyuan_video_1_5(960, 9.0),
    "wan-ai/wan2.1-t2v-1.3b-diffusers": _wan(12, 8960, 30, 3.0),
    "wan-ai/wan2.1-t2v-14b-diffusers": _wan(40, 13824, 40, 3.0),
    "wan-ai/wan2.2-ti2v-5b-diffusers": _wan(
        24,
        14336,
        30,
        5.0,
        transformer={"in_channels": 48, "out_channels": 48},
        vae=_WAN_22_VAE,
        index={"expand_timesteps": True},
        stored={"transformer": 2},
    ),
    "wan-ai/wan2.1-i2v-14b-480p-diffusers": _wan_i2v(3.0),
    "wan-ai/wan2.1-i2v-14b-720p-diffusers": _wan_i2v(5.0),
    "wan-ai/wan2.2-t2v-a14b-diffusers": _wan(
        40,
        13824,
        40,
        3.0,
        index={
            "transformer": ["diffusers", "WanTransformer3DModel"],
            "transformer_2": ["diffusers", "WanTransformer3DModel"],
            "boundary_ratio": 0.875,
        },
    ),
    "thudm/cogvideox-2b": _cogvideox(30, 30, 3.0, False),
    "thudm/cogvideox-5b": _cogvideox(48, 42, 1.0, True),
    "zai-org/cogvideox-2b": _cogvideox(30, 30, 3.0, False),
    "zai-org/cogvideox-5b": _cogvideox(48, 42, 1.0, True),
    "lightricks/ltx-2": LTX_2,
    "lightricks/ltx-video": LTX_VIDEO,
    "genmo/mochi-1-preview": MOCHI,
    "hpcai-tech/opensora-stdit-v3": OPEN_SORA,
    "open_sora_1_2": OPEN_SORA,  # the folder of its recipe, which is planned before it is there
}
"""Hub id in lower case -> its configurations; `stored` is bytes per number in its files."""

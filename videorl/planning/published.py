"""Copies of the published configurations of known models, so that they are planned offline.

They were written down without the hub at hand, so they have not been compared with the files there;
`tests/unit/jobs/test_gpu_benchmark.py` holds the parameter counts of two.
Only what decides sizes is kept: latent statistics are numbers, not sizes.
"""

from __future__ import annotations

from typing import Any

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
_T5 = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
}
_UMT5 = {**_T5, "vocab_size": 256384, "relative_attention_max_distance": 128}
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
    return {
        "index": {
            "_class_name": "WanPipeline",
            "scheduler": ["diffusers", "UniPCMultistepScheduler"],
            **others.get("index", {}),
        },
        "transformer": {**_WAN, **sizes, **others.get("transformer", {})},
        "vae": others.get("vae", _WAN_VAE),
        "text_encoder": _UMT5,
        "scheduler": scheduler,
        "stored": {"transformer": 4, "vae": 4, "text_encoder": 2, **others.get("stored", {})},
    }


def _cogvideox(heads: int, layers: int, shift: float, is_rotary: bool) -> dict[str, Any]:
    sizes = {"num_attention_heads": heads, "num_layers": layers}
    return {
        "index": {
            "_class_name": "CogVideoXPipeline",
            "scheduler": ["diffusers", "CogVideoXDDIMScheduler"],
        },
        "transformer": {**_COGVIDEOX, **sizes, "use_rotary_positional_embeddings": is_rotary},
        "vae": _COGVIDEOX_VAE,
        "text_encoder": {**_T5, "vocab_size": 32128},
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
    "thudm/cogvideox-2b": _cogvideox(30, 30, 3.0, False),
    "thudm/cogvideox-5b": _cogvideox(48, 42, 1.0, True),
    "zai-org/cogvideox-2b": _cogvideox(30, 30, 3.0, False),
    "zai-org/cogvideox-5b": _cogvideox(48, 42, 1.0, True),
}
"""Hub id in lower case -> its configurations; `stored` is bytes per number in its files."""

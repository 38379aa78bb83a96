"""Published configurations of models that are neither Wan nor CogVideoX; see `published`."""

from __future__ import annotations

from typing import Any

T5 = {
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
    "relative_attention_num_buckets": 32,
}
HUNYUAN_VIDEO: dict[str, Any] = {
    "index": {
        "_class_name": "HunyuanVideoPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder_2": ["transformers", "CLIPTextModel"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
    },
    "transformer": {
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 20,
        "num_single_layers": 40,
        "num_refiner_layers": 2,
        "mlp_ratio": 4.0,
        "patch_size": 2,
        "patch_size_t": 1,
        "guidance_embeds": True,
        "text_embed_dim": 4096,
        "pooled_projection_dim": 768,
        "rope_theta": 256.0,
        "rope_axes_dim": [16, 56, 56],
    },
    "vae": {
        "latent_channels": 16,
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "scaling_factor": 0.476986,
        "spatial_compression_ratio": 8,
        "temporal_compression_ratio": 4,
    },
    "text_encoder": {
        "vocab_size": 128320,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "text_encoder_2": {
        "vocab_size": 49408,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 77,
    },
    "scheduler": {"shift": 7.0},
    "stored": {"transformer": 2, "vae": 2, "text_encoder": 2, "text_encoder_2": 2},
}

LTX_VIDEO = {
    "index": {
        "_class_name": "LTXPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    },
    "transformer": {
        "in_channels": 128,
        "out_channels": 128,
        "patch_size": 1,
        "patch_size_t": 1,
        "num_attention_heads": 32,
        "attention_head_dim": 64,
        "cross_attention_dim": 2048,
        "num_layers": 28,
        "caption_channels": 4096,
    },
    "vae": {
        "latent_channels": 128,
        "block_out_channels": [128, 256, 512, 512],
        "decoder_block_out_channels": [128, 256, 512, 512],
        "layers_per_block": [4, 3, 3, 3, 4],
        "decoder_layers_per_block": [4, 3, 3, 3, 4],
        "spatio_temporal_scaling": [True, True, True, False],
        "decoder_spatio_temporal_scaling": [True, True, True, False],
        "patch_size": 4,
        "patch_size_t": 1,
    },
    "text_encoder": {**T5, "vocab_size": 32128},
    "scheduler": {
        "use_dynamic_shifting": True,
        "base_shift": 0.95,
        "max_shift": 2.05,
        "base_image_seq_len": 1024,
        "max_image_seq_len": 4096,
        "shift_terminal": 0.1,
    },
    "stored": {"transformer": 4, "vae": 4, "text_encoder": 4},
}
MOCHI = {
    "index": {
        "_class_name": "MochiPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "force_zeros_for_empty_prompt": True,
    },
    "transformer": {
        "patch_size": 2,
        "num_attention_heads": 24,
        "attention_head_dim": 128,
        "num_layers": 48,
        "pooled_projection_dim": 1536,
        "in_channels": 12,
        "text_embed_dim": 4096,
        "time_embed_dim": 256,
        "max_sequence_length": 256,
    },
    "vae": {
        "in_channels": 15,
        "latent_channels": 12,
        "encoder_block_out_channels": [64, 128, 256, 384],
        "decoder_block_out_channels": [128, 256, 512, 768],
        "layers_per_block": [3, 3, 4, 6, 3],
        "temporal_expansions": [1, 2, 3],
        "spatial_expansions": [2, 2, 2],
    },
    "text_encoder": {**T5, "vocab_size": 32128},
    "scheduler": {"invert_sigmas": True},
    "stored": {"transformer": 4, "vae": 4, "text_encoder": 4},
}
OPEN_SORA: dict[str, Any] = {
    "index": {
        "_class_name": "OpenSoraPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    },
    "transformer": {
        "depth": 28,
        "hidden_size": 1152,
        "num_heads": 16,
        "mlp_ratio": 4.0,
        "patch_size": [1, 2, 2],
        "in_channels": 4,
        "caption_channels": 4096,
        "model_max_length": 300,
        "input_sq_size": 512,
    },
    "vae": {
        "spatial": {
            "block_out_channels": [128, 256, 512, 512],
            "down_block_types": ["DownEncoderBlock2D"] * 4,
            "up_block_types": ["UpDecoderBlock2D"] * 4,
            "layers_per_block": 2,
            "latent_channels": 4,
        },
        "temporal": {},
    },
    "text_encoder": {**T5, "vocab_size": 32128},
    "scheduler": {},
    "stored": {"transformer": 4, "vae": 4, "text_encoder": 4},
}
"""Network and VAE have the published numbers of values (tests/unit/open_sora)."""


def hunyuan_video_1_5(target_size: int, shift: float) -> dict[str, Any]:
    """Return the configuration of HunyuanVideo 1.5 for 480p (640, 5) or 720p (960, 9)."""
    return {
        "index": {
            "_class_name": "HunyuanVideo15Pipeline",
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "text_encoder_2": ["transformers", "T5EncoderModel"],
            "tokenizer_2": ["transformers", "ByT5Tokenizer"],
            "guider": ["diffusers", "ClassifierFreeGuidance"],
        },
        "transformer": {
            "in_channels": 65,
            "out_channels": 32,
            "num_attention_heads": 16,
            "attention_head_dim": 128,
            "num_layers": 54,
            "num_refiner_layers": 2,
            "mlp_ratio": 4.0,
            "patch_size": 1,
            "patch_size_t": 1,
            "text_embed_dim": 3584,
            "text_embed_2_dim": 1472,
            "image_embed_dim": 1152,
            "rope_axes_dim": [16, 56, 56],
            "target_size": target_size,
            "task_type": "t2v",
        },
        "vae": {
            "latent_channels": 32,
            "block_out_channels": [128, 256, 512, 1024, 1024],
            "layers_per_block": 2,
            "spatial_compression_ratio": 16,
            "temporal_compression_ratio": 4,
            "scaling_factor": 1.03682,
        },
        "text_encoder": {
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [16, 24, 24],
            },
        },
        "text_encoder_2": {
            "vocab_size": 1510,
            "d_model": 1472,
            "d_kv": 64,
            "d_ff": 3584,
            "num_layers": 12,
            "num_heads": 6,
            "feed_forward_proj": "gated-gelu",
        },
        "scheduler": {"shift": shift},
        "stored": {"transformer": 4, "vae": 4, "text_encoder": 2, "text_encoder_2": 4},
    }

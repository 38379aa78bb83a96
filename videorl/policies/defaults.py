"""What a recipe leaves to the family of its policy: sizes, guidance and layers as published.

Values are those of the authors' own examples. They hold for real checkpoints: what lies here and
has a transformer of less than `SMALL_BYTES` was made for tests and demonstrations, and keeps the
plain defaults of `videorl.settings.model`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from videorl.files.hub import local_path
from videorl.policies.checkpoints import SHIPPED

SMALL_BYTES = 10**9
"""Of the transformer's files: 500 million parameters in half precision."""


@dataclass(frozen=True)
class Variant:
    """Some checkpoints of a family."""

    settings: Mapping[str, Any]
    """Dotted key -> value, over those of the family."""
    file: str
    """JSON file of a checkpoint by which they are known where it lies in a local folder,"""
    key: str
    """a key of it,"""
    value: Any
    """and what that has there."""
    name: str | None = None
    """Regular expression by which `policy.path` tells them too; case does not matter."""


@dataclass(frozen=True)
class FamilyDefaults:
    """What the recipes of a family need not say; a family of your own may have it as `defaults`."""

    settings: Mapping[str, Any]
    """Dotted key -> value."""
    variants: tuple[Variant, ...] = ()
    """Each that a checkpoint is adds its settings."""
    flow_shifts: Mapping[int, float] = field(default_factory=dict[int, float])
    """Shorter side in pixels -> `sampling.flow_shift`, unless a variant says it."""


# As published, but for its commas, which are put in below: they look like plain ones.
_WAN_NEGATIVE_PROMPT = (
    "色调艳丽,过曝,静态,细节模糊不清,字幕,风格,作品,画作,画面,静止,整体发灰,最差质量,低质量,"
    "JPEG压缩残留,丑陋的,残缺的,多余的手指,画得不好的手部,画得不好的脸部,畸形的,毁容的,"
    "形态畸形的肢体,手指融合,静止不动的画面,杂乱的背景,三条腿,背景人很多,倒着走"
).replace(",", "\N{FULLWIDTH COMMA}")

_LTX_NEGATIVE_PROMPT = "worst quality, inconsistent motion, blurry, jittery, distorted"

_TI2V = Variant(
    file="model_index.json",
    key="expand_timesteps",
    value=True,
    name="ti2v",
    settings={
        "sampling.num_frames": 121,
        "sampling.height": 704,
        "sampling.width": 1280,
        "sampling.fps": 24.0,
        "sampling.flow_shift": None,  # the checkpoint's own, 5, is right at any size
    },
)

_LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]
"""Attention and feed-forward of a block,"""
_TEXT_LAYERS = [
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    *("ff_context.net.0.proj", "ff_context.net.2"),
]
"""and those that it has for the text alone."""

DEFAULTS: dict[str, FamilyDefaults] = {
    # Steps, guidance of either transformer and shift are said to be the authors'; not checked here.
    "wan_2_2": FamilyDefaults(
        settings={
            "sampling.negative_prompt": _WAN_NEGATIVE_PROMPT,
            "sampling.height": 720,
            "sampling.width": 1280,
            "sampling.num_inference_steps": 40,
            "sampling.guidance_scale": 4.0,
            "sampling.guidance_scale_2": 3.0,
            "sampling.flow_shift": 12.0,
        },
    ),
    "wan": FamilyDefaults(
        settings={"sampling.negative_prompt": _WAN_NEGATIVE_PROMPT},
        variants=(_TI2V,),
        flow_shifts={480: 3.0, 720: 5.0},
    ),
    "wan_i2v": FamilyDefaults(
        settings={
            "sampling.negative_prompt": _WAN_NEGATIVE_PROMPT,
            "sampling.num_inference_steps": 40,
        },
        variants=(replace(_TI2V, settings={**_TI2V.settings, "sampling.num_inference_steps": 50}),),
        flow_shifts={480: 3.0, 720: 5.0},
    ),
    "cogvideox": FamilyDefaults(
        settings={
            "policy.lora.target_modules": _LAYERS,
            "sampling.num_frames": 49,
            "sampling.height": 480,
            "sampling.width": 720,
            "sampling.fps": 8.0,
            "sampling.num_inference_steps": 50,
            "sampling.guidance_scale": 6.0,
            "sampling.max_sequence_length": 226,
        },
        variants=(
            Variant(  # 2B alone has absolute positions, and was trained and published in float16
                file="transformer/config.json",
                key="use_rotary_positional_embeddings",
                value=False,
                name=r"cogvideox-?2b",
                settings={"sampling.half_precision": "float16"},
            ),
            Variant(
                file="transformer/config.json",
                key="patch_size_t",
                value=2,
                name=r"cogvideox-?1\.5",
                settings={
                    "sampling.num_frames": 81,
                    "sampling.height": 768,
                    "sampling.width": 1360,
                    "sampling.fps": 16.0,
                },
            ),
            Variant(
                file="model_index.json",
                key="scheduler",
                value=["diffusers", "CogVideoXDPMScheduler"],
                settings={"sampling.dynamic_guidance": True},
            ),
        ),
    ),
    "ltx_video": FamilyDefaults(
        settings={
            "policy.lora.target_modules": _LAYERS,
            "sampling.num_frames": 161,
            "sampling.height": 480,
            "sampling.width": 704,
            "sampling.fps": 25.0,
            "sampling.num_inference_steps": 50,
            "sampling.guidance_scale": 3.0,
            "sampling.negative_prompt": _LTX_NEGATIVE_PROMPT,
            "sampling.max_sequence_length": 128,
        },
    ),
    # As in the example of diffusers' pipeline, and its own defaults where the example has none.
    "ltx_2": FamilyDefaults(
        settings={
            "policy.lora.target_modules": [
                *_LAYERS,
                *(f"audio_{name}" for name in ("ff.net.0.proj", "ff.net.2")),
            ],
            "sampling.num_frames": 121,
            "sampling.height": 512,
            "sampling.width": 768,
            "sampling.fps": 24.0,
            "sampling.num_inference_steps": 30,
            "sampling.guidance_scale": 3.0,
            "sampling.audio_guidance_scale": 7.0,
            "sampling.modality_scale": 3.0,
            "sampling.guidance_rescale": 0.7,
            "sampling.negative_prompt": _LTX_NEGATIVE_PROMPT,
            "sampling.max_sequence_length": 1024,
        },
        variants=(
            Variant(  # blocks that can leave out their attention
                file="transformer/config.json",
                key="perturbed_attn",
                value=True,
                name=r"ltx-2\.3",
                settings={"sampling.stg_scale": 1.0, "sampling.stg_blocks": [28]},
            ),
        ),
    ),
    "hunyuan_video": FamilyDefaults(
        settings={
            "policy.lora.target_modules": [*_LAYERS, *_TEXT_LAYERS, "proj_mlp", "proj_out"],
            "sampling.num_frames": 129,
            "sampling.height": 720,
            "sampling.width": 1280,
            "sampling.fps": 24.0,
            "sampling.num_inference_steps": 50,
            "sampling.guidance_scale": 6.0,
            "sampling.max_sequence_length": 256,
        },
    ),
    # Guidance and the shift, which is the checkpoint's own (5 at 480p, 9 at 720p), are those of
    # diffusers' conversion script; frames, rate and steps could not be checked.
    "hunyuan_video_1_5": FamilyDefaults(
        settings={
            "policy.lora.target_modules": [*_LAYERS, *_TEXT_LAYERS],
            "sampling.num_frames": 121,
            "sampling.height": 480,
            "sampling.width": 848,
            "sampling.fps": 24.0,
            "sampling.num_inference_steps": 50,
            "sampling.guidance_scale": 6.0,
            "sampling.max_sequence_length": 1000,
            "sampling.vae_tiling": True,  # its VAE attends to all places of all frames at once
        },
        variants=(
            Variant(
                file="transformer/config.json",
                key="target_size",
                value=960,
                name=r"hunyuanvideo-1\.5.*720p",
                settings={"sampling.height": 720, "sampling.width": 1280},
            ),
        ),
    ),
    "mochi": FamilyDefaults(
        settings={
            "policy.lora.target_modules": _LAYERS,
            "sampling.num_frames": 85,
            "sampling.height": 480,
            "sampling.width": 848,
            "sampling.fps": 30.0,
            "sampling.num_inference_steps": 64,
            "sampling.guidance_scale": 4.5,
            "sampling.max_sequence_length": 256,
        },
    ),
    "open_sora": FamilyDefaults(
        settings={
            "policy.lora.target_modules": [
                "attn.qkv",
                "attn.proj",
                "cross_attn.q_linear",
                "cross_attn.kv_linear",
                "cross_attn.proj",
                "mlp.fc1",
                "mlp.fc2",
            ],
            "sampling.num_frames": 51,
            "sampling.height": 240,
            "sampling.width": 426,
            "sampling.fps": 24.0,
            "sampling.num_inference_steps": 30,
            "sampling.guidance_scale": 7.0,
            "sampling.max_sequence_length": 300,
        },
    ),
}
"""By `policy.family`. Here and not in the families' files, which import torch."""


SIZE = ("sampling.height", "sampling.width")
_WRITTEN_OUT = {
    *SIZE,
    "sampling.num_frames",
    "sampling.fps",
    "sampling.num_inference_steps",
    "sampling.guidance_scale",
    "sampling.negative_prompt",
    "sampling.max_sequence_length",
    "sampling.batch_size",
}


def family_settings(
    defaults: FamilyDefaults, path: str, settings: Mapping[str, Any], stated: Set[str]
) -> dict[str, Any]:
    """Return dotted key -> value of what a recipe leaves to its family.

    Args:
        defaults: Those of the family.
        path: `policy.path`; empty = not known yet.
        settings: Dotted key -> value of both sides of a video, by the recipe or the schema.
        stated: The keys that the recipe sets. If they are all that there was before families had
            defaults, as in the recipes of older run folders, nothing is left.
    """
    if stated >= _WRITTEN_OUT or _is_small(path):
        return {}
    found = dict(defaults.settings)
    for variant in defaults.variants:
        if _is(variant, path):
            found |= variant.settings
    if "sampling.guidance_scale" in stated:  # both guidances are chosen together
        found.pop("sampling.guidance_scale_2", None)
    sides = [settings[key] if key in stated else found.get(key, settings[key]) for key in SIZE]
    if min(sides) in defaults.flow_shifts:
        found.setdefault("sampling.flow_shift", defaults.flow_shifts[min(sides)])
    return {key: value for key, value in found.items() if key not in stated}


def _is_small(path: str) -> bool:
    folder = _folder(path)
    files = (folder / "transformer").glob("*.safetensors")
    return folder.is_dir() and sum(file.stat().st_size for file in files) < SMALL_BYTES


def _is(variant: Variant, path: str) -> bool:
    if variant.name is not None and re.search(variant.name, path, re.IGNORECASE):
        return True
    try:
        content = json.loads((_folder(path) / variant.file).read_text(encoding="utf-8"))
        return content.get(variant.key) == variant.value
    except (OSError, ValueError, AttributeError):
        return False  # of the hub, or damaged, which whoever loads it says


def _folder(path: str) -> Path:
    return SHIPPED.get(path, local_path(path))

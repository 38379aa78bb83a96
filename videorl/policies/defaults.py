"""What a recipe leaves to the family of its policy: sizes, guidance and layers as published.

Values are those of the authors' own examples. They hold for real checkpoints: what lies here and
has a transformer of less than `SMALL_BYTES` was made for tests and demonstrations, and keeps the
plain defaults of `videorl.settings.model`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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

DEFAULTS: dict[str, FamilyDefaults] = {
    "wan": FamilyDefaults(
        settings={"sampling.negative_prompt": _WAN_NEGATIVE_PROMPT},
        variants=(
            Variant(
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
            ),
        ),
        flow_shifts={480: 3.0, 720: 5.0},
    ),
    "cogvideox": FamilyDefaults(
        settings={
            "policy.lora.target_modules": [
                "to_q",
                "to_k",
                "to_v",
                "to_out.0",
                "ff.net.0.proj",
                "ff.net.2",
            ],
            "sampling.num_frames": 49,
            "sampling.height": 480,
            "sampling.width": 720,
            "sampling.fps": 8.0,
            "sampling.num_inference_steps": 50,
            "sampling.guidance_scale": 6.0,
            "sampling.max_sequence_length": 226,
        },
        variants=(
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
    return SHIPPED.get(path, Path(path).expanduser())

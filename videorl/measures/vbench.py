"""VBench's dimensions and totals (arXiv 2311.17982; constants of `scripts/constant.py`)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from videorl.errors import ConfigError

CACHE = "VBENCH_CACHE_DIR"
"""Environment variable of the folder into which the `vbench` package downloads weights."""


@dataclass(frozen=True, slots=True)
class Dimension:
    """How one dimension enters the totals."""

    low: float
    """What becomes 0."""
    high: float
    """What becomes 1."""
    is_quality: bool = False
    """Part of the quality score; else of the semantic score."""
    weight: float = 1.0
    weights_file: str = ""
    """Its model, below the folder of weights; empty = it needs none, or is not in our seven."""


DIMENSIONS: Mapping[str, Dimension] = MappingProxyType(
    {
        "subject consistency": Dimension(
            0.1462, 1.0, True, 1.0, "dino_model/dino_vitbase16_pretrain.pth"
        ),
        "background consistency": Dimension(0.2615, 1.0, True, 1.0, "clip_model/ViT-B-32.pt"),
        "temporal flickering": Dimension(0.6293, 1.0, True),
        "motion smoothness": Dimension(0.706, 0.9975, True, 1.0, "amt_model/amt-s.pth"),
        "dynamic degree": Dimension(0.0, 1.0, True, 0.5, "raft_model/models/raft-things.pth"),
        "aesthetic quality": Dimension(
            0.0, 1.0, True, 1.0, "aesthetic_model/emb_reader/sa_0_4_vit_l_14_linear.pth"
        ),
        "imaging quality": Dimension(
            0.0, 1.0, True, 1.0, "pyiqa_model/musiq_spaq_ckpt-358bb6af.pth"
        ),
        "object class": Dimension(0.0, 1.0),
        "multiple objects": Dimension(0.0, 1.0),
        "human action": Dimension(0.0, 1.0),
        "color": Dimension(0.0, 1.0),
        "spatial relationship": Dimension(0.0, 1.0),
        "scene": Dimension(0.0, 0.8222),
        "appearance style": Dimension(0.0009, 0.2855),
        "temporal style": Dimension(0.0, 0.364),
        "overall consistency": Dimension(0.0, 0.364),
    }
)
QUALITY = tuple(name for name, dimension in DIMENSIONS.items() if dimension.is_quality)
"""The seven dimensions that need no object or style in the prompt: those of OnlineVPO's table."""
SEMANTIC = tuple(name for name in DIMENSIONS if name not in QUALITY)
_QUALITY_SHARE, _SEMANTIC_SHARE = 4.0, 1.0


@dataclass(frozen=True, slots=True)
class Totals:
    """VBench's totals, 1 = best; None where a dimension is missing, since none may be left out."""

    quality: float | None
    semantic: float | None
    total: float | None


def totals(values: Mapping[str, float]) -> Totals:
    """Return the totals of raw dimensions, as VBench's `scripts/cal_final_score.py`.

    Each dimension becomes (value − low) / (high − low), and is averaged by weight over the quality
    and over the semantic dimensions; the total is (4 quality + semantic) / 5. Values outside of
    [low, high] are not clipped.

    Args:
        values: Name of a dimension (with spaces or underscores) -> raw value, 1 = 100 %.

    Raises:
        ConfigError: A name is not one of VBench's, or a value is not finite.
    """
    raw = {_name(name): value for name, value in values.items()}
    for name, value in raw.items():
        if not math.isfinite(value):
            raise ConfigError(f"VBench's {name} must be a finite number, got {value}")
    quality, semantic = _mean(raw, QUALITY), _mean(raw, SEMANTIC)
    total = None
    if quality is not None and semantic is not None:
        shares = _QUALITY_SHARE + _SEMANTIC_SHARE
        total = (_QUALITY_SHARE * quality + _SEMANTIC_SHARE * semantic) / shares
    return Totals(quality, semantic, total)


def _mean(raw: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    if any(name not in raw for name in names):
        return None
    weight = sum(DIMENSIONS[name].weight for name in names)
    return sum(_normalised(name, raw[name]) * DIMENSIONS[name].weight for name in names) / weight


def _normalised(name: str, value: float) -> float:
    dimension = DIMENSIONS[name]
    return (value - dimension.low) / (dimension.high - dimension.low)


def _name(name: str) -> str:
    plain = name.replace("_", " ").strip().lower()
    if plain not in DIMENSIONS:
        raise ConfigError(f"VBench has no dimension {name!r}; it has {', '.join(DIMENSIONS)}")
    return plain


def read_results(path: Path) -> dict[str, float]:
    """Return the raw dimensions that the `vbench` package wrote (`..._eval_results.json`).

    The file maps a dimension to its value, or to a list that begins with it.

    Raises:
        ConfigError: The file cannot be read, or is of another layout.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
        items = [
            (name, value[0] if isinstance(value, list) else value) for name, value in found.items()
        ]
        return {_name(name): _number(name, value) for name, value in items}
    except (OSError, ValueError, AttributeError, IndexError, TypeError) as error:
        raise ConfigError(f"{path}: cannot be read as results of VBench: {error}") from error


def _number(name: str, value: Any) -> float:
    if isinstance(value, str) or not math.isfinite(number := float(value)):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return number


def weights_folder() -> Path:
    """Return where the `vbench` package keeps its weights."""
    return Path(os.environ.get(CACHE) or Path.home() / ".cache" / "vbench")


IN_PACKAGE: Mapping[str, str] = MappingProxyType(
    {
        "motion smoothness": "AMT-S is in no other package that is kept up",
        "dynamic degree": "elsewhere RAFT is in torchvision alone, in another layout",
        "imaging quality": "MUSIQ is in pyiqa, which loads torchvision and pins much else",
    }
)
"""Dimensions that the `vbench` package measures, in an environment of its own -> why."""


def why_absent(name: str) -> str:
    """Return why a dimension of `IN_PACKAGE` is not measured without it, and what to do."""
    path = weights_folder() / DIMENSIONS[name].weights_file
    state = "which is there" if path.exists() else "which is not there"
    return (
        f"{name} is not measured: it needs the `vbench` package ({IN_PACKAGE[name]}) in an "
        "environment of its own; name that with --vbench-python, or give what the package wrote "
        f"with --vbench; its weights are {path}, {state}"
    )

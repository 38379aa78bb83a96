"""Tiny but genuine policies, with random weights, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.families import TINY
from tests.families.cogvideox import save_tiny_cogvideox
from tests.families.wan import save_tiny_wan
from videorl.embedding import Embedding
from videorl.policies.defaults import DEFAULTS
from videorl.settings.model import LoraConfig, PolicyConfig, SamplingConfig
from videorl.types import TextAndImage

__all__ = ["TINY", "encode", "save_tiny_cogvideox", "save_tiny_wan", "tiny_policy", "tiny_sampling"]


def tiny_policy(
    folder: Path, family: str = "wan", *, rank: int = 4, initial: str | None = None
) -> PolicyConfig:
    """Return the configuration of a policy on a tiny checkpoint; rank 0 trains all weights."""
    lora = LoraConfig(rank=rank, alpha=2 * rank, initial=initial)
    targets = DEFAULTS[family].settings.get("policy.lora.target_modules")
    lora.target_modules = targets or lora.target_modules
    return PolicyConfig(family=family, path=str(folder), lora=lora)


def tiny_sampling(family: str = "wan", **changes: object) -> SamplingConfig:
    """Return sampling settings that fit the tiny checkpoint of a family."""
    return TINY[family].sampling(**changes)


def encode(policy: Any, texts: Sequence[str]) -> list[Embedding]:
    """Encode texts, each with a picture if the prompts of the policy's family carry one."""
    picture = policy._family.takes_images and TINY["wan_i2v"].image
    return policy.encode([TextAndImage(text, picture) if picture else text for text in texts])

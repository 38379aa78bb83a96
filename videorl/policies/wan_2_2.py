"""Wan 2.2 A14B: a Wan with two transformers, one for the times of high noise and one for the rest.

Its smaller sibling, Wan 2.2 TI2V-5B, has one, and is of the family `wan`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffusers.models.transformers.transformer_wan import WanTransformer3DModel

from videorl.config import PolicyConfig, SamplingConfig
from videorl.errors import ConfigError
from videorl.policies.experts import TRAINED
from videorl.policies.wan import Wan


class Wan22(Wan):
    """Implements `videorl.policies.family.Family`; see `videorl.policies.experts`."""

    model_classes: Mapping[str, Any] = MappingProxyType(
        {**Wan.model_classes, "transformer_2": WanTransformer3DModel}
    )

    def pipeline_options(self, folder: Path, index: Mapping[str, Any]) -> dict[str, Any]:
        """Return the boundary, a time in [0, 1]: `transformer` computes at and above it.

        Raises:
            ConfigError: The checkpoint lacks the boundary or the second transformer.
        """
        boundary = index.get("boundary_ratio")
        if boundary is None or not index.get("transformer_2", [None])[0]:
            raise ConfigError(
                f"policy.path: {folder}/model_index.json must name transformer_2 and its "
                f"boundary_ratio for policy.family=wan_2_2, got boundary_ratio={boundary} and "
                f"transformer_2={index.get('transformer_2')}"
            )
        return {"boundary_ratio": boundary}

    def trained_transformers(self, names: Sequence[str], config: PolicyConfig) -> Sequence[str]:
        """Return those of `policy.experts`."""
        return TRAINED[config.experts]

    def call_options(self, sampling: SamplingConfig) -> dict[str, Any]:
        """Return size, steps and the guidance of each transformer."""
        options = super().call_options(replace(sampling, guidance_scale_2=None))
        second = sampling.guidance_scale_2
        return options if second is None else {**options, "guidance_scale_2": second}

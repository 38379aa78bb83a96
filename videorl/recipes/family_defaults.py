"""Recipes whose policy is of a family that has defaults of its own."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from videorl.errors import ConfigError
from videorl.policies import FAMILIES
from videorl.policies.defaults import DEFAULTS, SIZE, FamilyDefaults, family_settings
from videorl.settings.model import PolicyConfig, SamplingConfig
from videorl.settings.plugins import find, is_plugin


def left_to_family(merged: Any, schema: type, stated: Collection[str]) -> dict[str, Any]:
    """Return dotted key -> value of what a recipe leaves to the family of its policy.

    Args:
        merged: All settings, of files, overrides and the schema.
        schema: Of the recipe; where it has no policy that samples, nothing is left.
        stated: Dotted keys that files or overrides set.

    Raises:
        OmegaConfBaseException: `policy.path` refers to something that is not there.
    """
    hints = get_type_hints(schema)
    if hints.get("policy") is not PolicyConfig or hints.get("sampling") is not SamplingConfig:
        return {}
    defaults = _defaults(merged.policy.family)
    if defaults is None:
        return {}
    path = "" if OmegaConf.is_missing(merged.policy, "path") else merged.policy.path
    settings = {key: OmegaConf.select(merged, key) for key in SIZE}
    keys = {re.sub(r"\.\d+$", "", key) for key in stated}  # of lists, not of their items
    return family_settings(defaults, path, settings, keys)


def _defaults(family: str) -> FamilyDefaults | None:
    if not is_plugin(family):
        return DEFAULTS.get(family)
    try:
        return getattr(find(family, FAMILIES, "policy.family"), "defaults", None)
    except ConfigError:
        return None  # validation says why

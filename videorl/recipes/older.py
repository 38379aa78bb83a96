"""Recipes as they were written before: what has another place now is moved there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from videorl.config import Recipe
from videorl.recipes.choices import choices, default_settings
from videorl.settings.plugins import find

logger = logging.getLogger(__name__)


def migrated(settings: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """Return a recipe's plain settings in today's layout.

    The settings of all objectives and rules once stood in one flat section each, and those of ReFL
    in a section `refl`, which every written-out recipe had. Settings of an objective or rule that
    was not chosen had no effect: they are left out, with a warning where they had been changed.
    """
    made = dict(settings)
    if not issubclass(schema, Recipe) or not isinstance(refl := made.pop("refl", None), Mapping):
        return dict(settings)
    objective = dict(made.get("objective") or {})
    if objective.get("name") == "refl":
        made["objective"] = {**objective, **refl}
    for name, choice in choices(schema).items():
        section = dict(made.get(name) or {})
        cls: Any = find(section.get(choice.key, choice.default), choice.known, name)
        defaults = dict(default_settings(name, choice))
        known = set(cls.__dataclass_fields__)
        made[name] = {key: value for key, value in section.items() if key in known}
        changed = [
            f"{name}.{key}={value}"
            for key, value in section.items()
            if key not in known and defaults.get(f"{name}.{key}", value) != value
        ]
        if changed:
            logger.warning("left out, as they never had an effect here: %s", ", ".join(changed))
    return made

"""`~` and `$NAME` in the paths of a recipe, replaced once, where the recipe is read."""

from __future__ import annotations

import dataclasses
from typing import Any

from videorl.files.hub import local_path

_PATHS = {
    "run_dir",
    "path",
    "initial",
    "source",
    "archive",
    "location",
    "train",
    "held_out",
    "base",
    "policy",
    "base_cache",
}
"""Settings that may name a file or folder, in whatever section they are."""
_FREE = "options"
"""A map of the user's keys, any of which may name one."""


def expand_paths(section: Any) -> None:
    """Replace `~` and `$NAME` at the start of every path of a recipe or section, in place.

    Elsewhere, in prompts and environments of workers, they are left as they are.
    """
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            expand_paths(value)
        elif isinstance(value, list):
            for item in value:
                if dataclasses.is_dataclass(item):
                    expand_paths(item)
        elif field.name == _FREE and isinstance(value, dict):
            setattr(section, field.name, {key: _expanded(item) for key, item in value.items()})
        elif field.name in _PATHS:
            setattr(section, field.name, _expanded(value))


def _expanded(value: Any) -> Any:
    is_path = isinstance(value, str) and value.startswith(("~", "$"))
    return str(local_path(value)) if is_path else value

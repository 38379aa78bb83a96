"""Settings given beside a recipe: `key=value` as typed on a command line, or values from Python.

What is typed for a text setting is taken literally: `name=001`, `run_dir=runs/exp #2`. Everything
else that is typed is YAML. References (`${key}`) are followed in both.
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, Union, get_args, get_origin

import yaml
from omegaconf import OmegaConf

from videorl.errors import ConfigError
from videorl.recipes.secrets import without_value


@dataclass(frozen=True)
class Override:
    """One setting to change."""

    key: str
    """Dotted; list items by position."""
    value: Any
    """A plain value; if `is_typed`, the text that was typed."""
    is_typed: bool = False

    def __str__(self) -> str:
        """Return what errors call it, without secrets."""
        return f"override {without_value(f'{self.key}={self.value}')!r}"

    def plain(self, annotation: Any = Any) -> Any:
        """Return the plain value for a setting of a type in the schema; it may be of another.

        Raises:
            ConfigError: What was typed for a setting that is no text is not YAML.
        """
        if not self.is_typed:
            return self.value
        options = get_args(annotation) if _is_union(annotation) else (annotation,)
        if str in options and not {bool, int, float} & {*options}:
            is_none = type(None) in options and self.value in ("", "null")
            return None if is_none else self.value
        found = self._yaml()
        # YAML cuts ` #` and what follows off, but whoever typed it meant it.
        is_cut = isinstance(found, str) and self.value.strip()[:1] not in ("'", '"')
        return self.value if is_cut else found

    def _yaml(self) -> Any:
        try:
            read: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={self.value}"]))
        except yaml.YAMLError as error:
            typed = f"{self.key}={self.value}"
            is_secret = without_value(typed) != typed
            reason = ", quote it" if is_secret else f": {error}"
            message = f"{self.key} has a value that is not YAML ({self}){reason}"
            raise ConfigError(message) from None
        return read["value"]


Overrides: TypeAlias = Sequence["str | Override"]
"""Texts are `key=value` as typed."""


def read_overrides(overrides: Overrides) -> list[Override]:
    """Return overrides in the given order.

    Raises:
        ConfigError: A text is not `key=value`.
    """
    return [_read(given) if isinstance(given, str) else given for given in overrides]


def _read(text: str) -> Override:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"an override is key=value, got {text!r}")
    return Override(key, value, is_typed=True)


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, types.UnionType)

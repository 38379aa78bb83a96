"""Sections of a recipe whose settings depend on what they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """A section of a recipe whose settings depend on what it names, in its field's metadata."""

    key: str
    """The setting that names it."""
    known: Mapping[str, str]
    """Built-in name -> `module:attribute` of a dataclass."""
    default: str
    """The name where the recipe has none."""
    bases: tuple[type, ...]
    """One of these is inherited by all that may be named."""
    required: tuple[str, ...] = ()
    """Attributes that a class must have beside the methods of its base."""

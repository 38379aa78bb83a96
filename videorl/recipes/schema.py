"""YAML values against a schema of dataclasses: errors name the key, its place and a near one."""

from __future__ import annotations

import dataclasses
import difflib
import re
import types
from collections.abc import Iterator, Mapping
from typing import Any, Union, get_args, get_origin, get_type_hints

from videorl.errors import ConfigError


@dataclasses.dataclass(frozen=True, slots=True)
class Origin:
    """Where a setting was given, for errors, and the schema that it should fit."""

    place: str
    schema: type

    def __str__(self) -> str:
        return self.place


_SCALARS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "text (in quotes, where YAML would read something else)"),
}
"""Type in the schema -> YAML types accepted for it, and its name in plain words."""


def field_type(annotation: Any, part: str, key: str, origin: Origin) -> Any:
    """Return the schema type of one path component under `annotation`.

    Raises:
        ConfigError: The schema has no such component.
    """
    if dataclasses.is_dataclass(annotation):
        hints = get_type_hints(annotation)
        if part not in hints:
            raise _unknown(key, origin)
        return hints[part]
    if get_origin(annotation) in (list, dict):
        return get_args(annotation)[-1]
    if annotation is Any:
        return Any
    raise _unknown(key, origin)


def check(value: Any, annotation: Any, key: str, origin: Origin) -> None:
    """Check keys and types of a plain YAML value against the schema.

    OmegaConf checks them too, but loses the place of an error inside a list of sections.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type.
    """
    if annotation is Any or (isinstance(value, str) and re.search(r"^\?\?\?$|\$\{", value)):
        return
    if get_origin(annotation) in (Union, types.UnionType):
        options = get_args(annotation)
        if value is None and type(None) in options:
            return
        accepted = [option for option in options if option is not type(None)]
        # Of several, such as a number or a word, the one that the value is of.
        annotation = next((a for a in accepted if type(value) is a), accepted[0])
    if annotation in _SCALARS:
        accepted, wanted = _SCALARS[annotation]
        if not isinstance(value, accepted) or (isinstance(value, bool) and annotation is not bool):
            raise _wrong_type(key, wanted, value, origin)
    elif get_origin(annotation) is list:
        if not isinstance(value, list):
            raise _wrong_type(key, "a list", value, origin)
        for i, item in enumerate(value):
            check(item, get_args(annotation)[0], dotted(key, str(i)), origin)
    else:
        if not isinstance(value, dict):
            raise _wrong_type(key, "a section of `key: value` lines", value, origin)
        for name, item in value.items():
            full_key = dotted(key, str(name))
            check(item, field_type(annotation, str(name), full_key, origin), full_key, origin)


def literal(settings: Any) -> Any:
    """Return plain settings that OmegaConf reads back as they are, even where a text has `${`."""
    if isinstance(settings, str):
        # OmegaConf's own escape: backslashes before a reference count double.
        return re.sub(r"(\\*)\$\{", lambda found: f"{2 * found[1]}\\${{", settings)
    if isinstance(settings, list):
        return [literal(item) for item in settings]
    if isinstance(settings, dict):
        return {name: literal(value) for name, value in settings.items()}
    return settings


def leaves(value: Any, key: str = "") -> Iterator[str]:
    """Yield the dotted keys of plain settings that hold no others."""
    items = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, list):
        items = enumerate(value)
    for name, item in items:
        yield from leaves(item, dotted(key, str(name)))
    if not items:
        yield key


def dotted(prefix: str, part: str) -> str:
    """Return the key of `part` in the section `prefix`; an empty prefix is the top level."""
    return f"{prefix}.{part}" if prefix else part


def setting_names(schema: Any, key: str = "") -> Iterator[str]:
    """Yield the dotted keys that recipes of a schema may set; those of a list's first section.

    Args:
        schema: A dataclass of settings. Where a section chooses among classes, as `objective`
            does, they are those of the default.
        key: The section that it stands in.
    """
    hints = get_type_hints(schema)
    for field in dataclasses.fields(schema):
        name, inner = dotted(key, field.name), get_args(hints[field.name])
        made = field.default_factory() if callable(field.default_factory) else field.default
        if dataclasses.is_dataclass(made):
            yield from setting_names(type(made), name)
        elif isinstance(made, list) and inner and dataclasses.is_dataclass(inner[0]):
            yield from setting_names(inner[0], dotted(name, "0"))
        else:
            yield name


def _wrong_type(key: str, wanted: str, value: Any, origin: Origin) -> ConfigError:
    return ConfigError(f"{key} must be {wanted}, got {value!r} ({origin})")


def _unknown(key: str, origin: Origin) -> ConfigError:
    """Name the known key most like `key`: by its whole path or, a little less, by its last part."""

    def likeness(known: str) -> float:
        whole = difflib.SequenceMatcher(None, known, re.sub(r"\.\d+", ".0", key)).ratio()
        last = difflib.SequenceMatcher(None, known.split(".")[-1], key.split(".")[-1]).ratio()
        return max(whole, 0.9 * last)

    nearest = max(_known_keys(origin.schema), key=likeness)
    if index := re.search(r"\.(\d+)", key):
        nearest = nearest.replace(".0.", f".{index[1]}.")
    return ConfigError(f"unknown key {key} ({origin}); the nearest known one is {nearest}")


def _known_keys(annotation: Any, prefix: str = "") -> Iterator[str]:
    """Yield every dotted key of the schema, sections included; list items count as item 0."""
    for name, hint in get_type_hints(annotation).items():
        yield (key := dotted(prefix, name))
        if get_origin(hint) is list and dataclasses.is_dataclass(get_args(hint)[0]):
            yield from _known_keys(get_args(hint)[0], f"{key}.0")
        elif dataclasses.is_dataclass(hint):
            yield from _known_keys(hint, key)

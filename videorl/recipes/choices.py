"""Sections of a recipe that are one of several dataclasses: `objective` and `selection`.

What the section names decides which settings it has. Naming another one, in a recipe that inherits
or on the command line, keeps the settings that both have; all others were meant for the old one.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from videorl.errors import ConfigError
from videorl.recipes.overrides import Override
from videorl.settings.choice import Choice
from videorl.settings.plugins import find, is_plugin, lacks


def specialised(
    schema: type, settings: Mapping[str, Any], overrides: Sequence[Override], place: str
) -> tuple[type, dict[str, Any], list[Override]]:
    """Return the schema with the dataclasses that a recipe names, and what is left to merge.

    Args:
        schema: A dataclass; fields made by `videorl.config.by_name` are choices.
        settings: The recipe as plain values.
        overrides: What replaces some of them.
        place: Where the settings were read, for errors.

    Returns:
        A subclass of the schema; the settings; the overrides that are not in these settings yet.

    Raises:
        ConfigError: What is named does not exist or is no such part, or a setting is another's.
    """
    made, left = dict(settings), list(overrides)
    fields: list[tuple[str, type, Any]] = []
    for name, choice in choices(schema).items():
        section = _section(name, made.get(name), place)
        cls = _named(name, choice, section, place)
        _check_owners(name, choice, cls, section, place)
        for override in _naming(name, choice, left):
            left.remove(override)
            section, cls = _overridden(name, choice, section, override)
        for override in left:
            first, *rest = override.key.split(".")
            if first == name and rest:
                _check_owners(name, choice, cls, rest[:1], str(override))
        made[name] = {choice.key: choice.default, **section}
        fields.append((name, cls, dataclasses.field(default_factory=cls)))
    if not fields:
        return schema, made, left
    return dataclasses.make_dataclass(schema.__name__, fields, bases=(schema,)), made, left


def choices(schema: type) -> dict[str, Choice]:
    """Return the fields of a schema that are one of several dataclasses."""
    return {
        field.name: field.metadata["choice"]
        for field in dataclasses.fields(schema)
        if "choice" in field.metadata
    }


def default_settings(name: str, choice: Choice) -> Iterator[tuple[str, Any]]:
    """Yield dotted key and default of every setting of every built-in part of a choice."""
    for part in choice.known:
        cls = find(part, choice.known, f"{name}.{choice.key}")
        for key, value in dataclasses.asdict(cls()).items():
            if key != choice.key:
                yield f"{name}.{key}", value


def owner_of(name: str, choice: Choice, key: str) -> str | None:
    """Return the built-in part that has a setting, or None."""
    for part in choice.known:
        if key in _keys(find(part, choice.known, f"{name}.{choice.key}")):
            return part
    return None


def _section(name: str, value: Any, place: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(
            f"{name} must be a section of `key: value` lines, got {value!r} ({place})"
        )
    return dict(value or {})


def _naming(name: str, choice: Choice, overrides: Sequence[Override]) -> list[Override]:
    """Return the overrides that say which dataclass a section is."""
    keys = (name, f"{name}.{choice.key}")
    return [override for override in overrides if override.key in keys]


def _overridden(
    name: str, choice: Choice, section: dict[str, Any], override: Override
) -> tuple[dict[str, Any], type]:
    """Apply `name={...}` or `name.key=other` to a section; a dict from Python adds to it."""
    place = str(override)
    if override.key != name:
        return renamed(name, choice, section, override.plain(str), place)
    given = _section(name, override.plain(), place)
    if not override.is_typed:
        part = given.get(choice.key, section.get(choice.key, choice.default))
        given = {**renamed(name, choice, section, part, place)[0], **given}
    section = given
    cls = _named(name, choice, section, place)
    _check_owners(name, choice, cls, section, place)
    return section, cls


def renamed(
    name: str, choice: Choice, section: Mapping[str, Any], part: Any, place: str
) -> tuple[dict[str, Any], type]:
    """Return a section that names another part, with the settings that this has too, and its class.

    Raises:
        ConfigError: What is named does not exist or is no such part.
    """
    cls = _named(name, choice, {choice.key: part}, place)
    kept = {own: setting for own, setting in section.items() if own in _keys(cls)}
    return {**kept, choice.key: part}, cls


def _named(name: str, choice: Choice, section: Mapping[str, Any], place: str) -> type:
    where, value = f"{name}.{choice.key}", section.get(choice.key, choice.default)
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be text, got {value!r} ({place})")
    try:
        cls = find(value, choice.known, where)
        if is_plugin(value):
            _check_part(f"{where}={value}", choice, cls)
    except ConfigError as error:
        raise ConfigError(f"{error} ({place})") from error
    return cls


def _check_part(what: str, choice: Choice, cls: Any) -> None:
    """Refuse a part of the user's own that is of another kind, or not finished."""
    if not inspect.isclass(cls) or not issubclass(cls, choice.bases):
        bases = " or ".join(f"{base.__module__}.{base.__qualname__}" for base in choice.bases)
        raise ConfigError(f"{what} must be a dataclass that inherits {bases}, got {cls!r}")
    if "__dataclass_fields__" not in vars(cls):
        raise ConfigError(f"{what} must be a dataclass: put @dataclass above the class")
    base = next(base for base in choice.bases if issubclass(cls, base))
    missing = [f"no {member}" for member in sorted(getattr(cls, "__abstractmethods__", ()))]
    missing += [f"no {member}" for member in choice.required if not hasattr(cls, member)]
    if missing := missing or lacks(cls, base):
        raise ConfigError(f"{what} lacks something of {base.__qualname__}: {', '.join(missing)}")


def _check_owners(name: str, choice: Choice, cls: type, keys: Iterable[str], place: str) -> None:
    """Refuse settings that belong to another part; those that nobody has are found later."""
    for key in keys:
        if key not in _keys(cls) and (owner := owner_of(name, choice, key)):
            chosen = getattr(cls, choice.key, cls.__name__)
            raise ConfigError(
                f"{name}.{key} belongs to {name}.{choice.key}={owner}, but {chosen} is chosen: "
                f"leave it out ({place})"
            )


def _keys(cls: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(cls)}

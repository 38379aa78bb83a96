"""Recipes that inherit: `base` names another recipe, and a file states only what differs from it.

Sections merge key by key. Lists (`rewards`) and maps of free keys (`learner.resources`) are
replaced whole, since their items belong together. A section that names another objective or
selection rule keeps the base's settings that the new one has too. `name` and `run_dir` say which
run it is, and are not inherited.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_type_hints

import yaml
from omegaconf import DictConfig, OmegaConf

from videorl.errors import ConfigError
from videorl.recipes.choices import choices, renamed, specialised
from videorl.recipes.kinds import FOLDERS, shipped
from videorl.recipes.older import migrated
from videorl.recipes.schema import Origin, check

NOT_INHERITED = ("name", "run_dir")
Source: TypeAlias = Path | Mapping[str, Any]
"""A file, or what one would say."""


@dataclass(frozen=True)
class Layer:
    """One file of a chain of recipes."""

    path: Path
    given: dict[str, Any]
    """What it says itself, without `base`."""
    settings: dict[str, Any]
    """That over the settings of its bases."""


def place_of(source: Source) -> Path:
    """Return the path of a recipe; of a dict, one for errors, in the working directory."""
    return source if isinstance(source, Path) else Path("the recipe given as a dict")


def layers(source: Source, schema: type) -> list[Layer]:
    """Return the files that a recipe is made of: the base of all first, the recipe's own last.

    Keys and types are checked in the bases, but not in the last file.

    Raises:
        ConfigError: A file is not readable YAML; a base is missing, is a recipe of another kind
            or has a wrong setting; the bases go round in a circle.
    """
    made: list[Layer] = []
    for file, given in reversed(_chain(source, schema)):
        settings = given
        if made:
            _check_base(made[-1], file, schema)
            settings = overlaid(made[-1].settings, given, schema, str(file))
        made.append(Layer(file, given, settings))
    return made


def overlaid(
    base: Mapping[str, Any], given: Mapping[str, Any], schema: type, place: str
) -> dict[str, Any]:
    """Return plain settings over those of a base, by the rules at the top of this file."""
    kept: dict[str, Any] = {key: value for key, value in base.items() if key not in NOT_INHERITED}
    for name, choice in choices(schema).items():
        old, new = kept.get(name), given.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping) and choice.key in new:
            kept[name], _ = renamed(name, choice, old, new[choice.key], place)
    return _merged(kept, given, schema)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the plain settings in one YAML file; references (`${...}`) are left as they are.

    Raises:
        ConfigError: It cannot be read, or holds no `key: value` lines.
    """
    try:
        loaded = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"{path} must hold `key: value` lines, got a list")
    settings: Any = OmegaConf.to_container(loaded)
    return settings


def fits(settings: Mapping[str, Any], schema: type) -> bool:
    """Tell whether a schema has all keys of plain settings, with values of these types."""
    try:
        _check(settings, schema, "")
    except ConfigError:
        return False
    return True


def _chain(source: Source, schema: Any) -> list[tuple[Path, dict[str, Any]]]:
    """Return each file and what it says, the recipe's own first, its last base at the end."""
    chain: list[tuple[Path, dict[str, Any]]] = []
    files = [place_of(source)]
    for file in files:  # which grows by the base of each
        given = dict(source) if isinstance(source, Mapping) and not chain else read_yaml(file)
        if "base" in given:
            base = _find_base(given.pop("base"), file, schema.command)
            is_circle = base.resolve() in {known.resolve() for known in files}
            files.append(base)
            if is_circle:
                raise ConfigError(f"bases go round in a circle: {' -> '.join(map(str, files))}")
        chain.append((file, migrated(given, schema)))
    return chain


def _find_base(base: Any, heir: Path, command: str) -> Path:
    """Return the file of what a recipe names as its base."""
    if not isinstance(base, str) or not base:
        raise ConfigError(
            f"base must be a shipped recipe's name or the path of a file, got {base!r} ({heir})"
        )
    places = (FOLDERS[command] / f"{base}.yaml", heir.parent / base, Path(base))
    if found := next((place for place in places if place.is_file()), None):
        return found
    for other, folder in FOLDERS.items():
        if (folder / f"{base}.yaml").is_file():
            raise ConfigError(
                f"{heir}: base {base!r} is a recipe for `videorl {other}`, but this one is read "
                f"for `videorl {command}`: a recipe inherits from its own kind"
            )
    names = [file.stem for file in shipped(command)]
    near = difflib.get_close_matches(Path(base).stem, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"{heir}: there is no base {base!r}: neither a file beside {heir.name} or in the working "
        f"directory, nor one of {', '.join(names)}{hint}"
    )


def _check_base(base: Layer, heir: Path, schema: Any) -> None:
    """Check keys and types of a base; one that says nothing is a mistake too."""
    if not base.settings:
        raise ConfigError(f"{base.path}, base of {heir}, is empty")
    try:
        _check(base.settings, schema, f"{base.path}, base of {heir}")
    except ConfigError as error:
        raise ConfigError(
            f"{error}; a recipe inherits from its own kind, here those of `videorl "
            f"{schema.command}`"
        ) from error


def _check(settings: Mapping[str, Any], schema: type, place: str) -> None:
    special, settings, _ = specialised(schema, settings, (), place)
    check(settings, special, "", Origin(place, special))


def _merged(base: Mapping[str, Any], given: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """Return a section over that of a base; sections in it are those that the schema has."""
    made, hints = dict(base), get_type_hints(schema)
    for key, value in given.items():
        below, hint = made.get(key), hints.get(key)
        if is_dataclass(hint) and isinstance(below, Mapping) and isinstance(value, Mapping):
            made[key] = _merged(below, value, hint)
        else:
            made[key] = value
    return made

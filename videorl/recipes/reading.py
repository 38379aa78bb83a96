"""Recipes on disk: find one, merge YAML and overrides into the schema."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from videorl.config import Recipe, RewardConfig
from videorl.errors import ConfigError
from videorl.recipes.choices import specialised
from videorl.recipes.family_defaults import left_to_family
from videorl.recipes.fingerprint import RunRecipe
from videorl.recipes.home import expand_paths
from videorl.recipes.inheritance import Source, layers, place_of
from videorl.recipes.kinds import RECIPES
from videorl.recipes.overrides import Override, Overrides, read_overrides
from videorl.recipes.schema import Origin, check, dotted, field_type, leaves, literal
from videorl.recipes.secrets import redacted
from videorl.recipes.validation import validate, validate_rewards

R = TypeVar("R")


def load_recipe(recipe: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> Recipe:
    """Return the validated recipe: defaults, overlaid by the YAML file, overlaid by overrides.

    Args:
        recipe: The name of a shipped recipe, the path of a YAML file, or what one would say as a
            dict; a `base` in it is relative to the working directory.
        overrides: `key=value` with dotted keys; list items by position (`rewards.0.weight=2`).
            Text settings are taken literally, see `videorl.recipes.overrides`.

    Raises:
        ConfigError: No such recipe, an unknown key, a value of the wrong type or out of range, or a
            required key left out.
    """
    source = recipe if isinstance(recipe, Mapping) else find_recipe(str(recipe))
    made = read_recipe(Recipe, source, overrides)
    validate(made)
    return made


def read_recipe(schema: type[R], source: Source, overrides: Overrides = ()) -> R:
    """Return the recipe of one file or dict, of any schema; values are not validated.

    Raises:
        ConfigError: As `load_recipe`.
    """
    path = place_of(source)
    try:
        merged = merged_recipe(schema, source, overrides)
        # `run_dir` quotes `name`, so a missing name would be listed twice.
        if missing := OmegaConf.missing_keys(merged) - {"run_dir"}:
            raise ConfigError(f"{path} must set {', '.join(sorted(missing))}")
        recipe: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    # Not of the specialised class, which other processes could not import.
    fields: Any = dataclasses.fields(schema)  # pyright: ignore[reportArgumentType]
    made = schema(**{field.name: getattr(recipe, field.name) for field in fields})
    expand_paths(made)
    return made


def merged_recipe(schema: type, source: Source, overrides: Overrides = ()) -> DictConfig:
    """Return the settings of one recipe over its bases and the defaults, with overrides.

    What it leaves out and its policy's family has a default of its own for, has that.

    Required keys may still be missing, and references (`${...}`) are not followed yet.

    Raises:
        ConfigError: As `load_recipe`.
        OmegaConfBaseException: A value does not fit the schema.
    """
    settings, place = layers(source, schema)[-1].settings, str(place_of(source))
    special, settings, left = specialised(schema, settings, read_overrides(overrides), place)
    check(settings, special, "", Origin(place, special))
    merged: Any = OmegaConf.merge(OmegaConf.structured(special), settings)
    stated = {*leaves(settings)}
    for override in left:
        stated |= {*leaves(_apply(merged, override, special), override.key)}
    for key, value in left_to_family(merged, schema, stated).items():
        OmegaConf.update(merged, key, value)
    return merged


def load_rewards(
    models: Sequence[str], name_or_path: str | None, overrides: Overrides = ()
) -> list[RewardConfig]:
    """Return validated reward models without the rest of a recipe.

    Args:
        models: Each `name` or `name=path`; its other settings are the defaults.
        name_or_path: A recipe, of which only `rewards` is read, or None. They come first.
        overrides: `rewards.N.key=value`, as for `load_recipe`.

    Raises:
        ConfigError: As `load_recipe`; or nothing is given.
    """
    path = None if name_or_path is None else find_recipe(name_or_path)
    read = {} if path is None else layers(path, Recipe)[-1].settings
    listed = list(read.get("rewards") or [])
    for name, equals, folder in (model.partition("=") for model in models):
        listed.append({"name": name} | ({"path": folder} if equals else {}))
    check({"rewards": listed}, Recipe, "", Origin(str(path or "--reward"), Recipe))
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Recipe), {"rewards": listed})
        for override in read_overrides(overrides):
            if not override.key.startswith("rewards."):
                raise ConfigError(f"only rewards can be set here, got {override}")
            _apply(merged, override, Recipe)
        rewards: Any = OmegaConf.to_object(merged.rewards)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path or '--reward'}: {str(error).splitlines()[0]}") from error
    for reward in rewards:
        expand_paths(reward)
    validate_rewards(rewards)
    return rewards


def to_yaml(recipe: RunRecipe) -> str:
    """Return every setting of the recipe, resolved, as YAML that `load_recipe` reads back.

    All but secrets, see `videorl.recipes.secrets`: this text goes into run folders and reports.
    """
    plain: Any = recipe
    return OmegaConf.to_yaml(OmegaConf.create(redacted(literal(dataclasses.asdict(plain)))))


def find_recipe(name_or_path: str, shipped: Path = RECIPES) -> Path:
    """Resolve the name of a recipe in the folder `shipped`, or a path, to an existing file.

    Raises:
        ConfigError: There is none.
    """
    if (named := shipped / f"{name_or_path}.yaml").is_file():
        return named
    if (path := Path(name_or_path)).is_file():
        return path
    names = sorted(file.stem for file in shipped.glob("*.yaml"))
    near = difflib.get_close_matches(Path(name_or_path).stem, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(
        f"no recipe {name_or_path!r}: neither a YAML file nor one of {', '.join(names)}{hint}"
    )


def _apply(recipe: Any, override: Override, schema: type) -> Any:
    """Set one key in the merged recipe; return its plain value."""
    key, origin = override.key, Origin(str(override), schema)
    if key == "base":
        raise ConfigError(f"base is set in a recipe's file alone, got the {override}")
    annotation: Any = schema
    path = ""
    for part in key.split("."):
        holder = OmegaConf.select(recipe, path) if path else recipe
        path, annotation = dotted(path, part), field_type(annotation, part, key, origin)
        if isinstance(holder, ListConfig) and not (part.isdigit() and int(part) < len(holder)):
            raise ConfigError(f"there is no {path} ({origin}): the list has {len(holder)} items")
    value = override.plain(annotation)
    check(value, annotation, key, origin)
    OmegaConf.update(recipe, key, value)
    return value

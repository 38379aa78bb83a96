"""A recipe in full, with the place that each of its values comes from."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from videorl.errors import ConfigError
from videorl.recipes.choices import choices
from videorl.recipes.family_defaults import left_to_family
from videorl.recipes.inheritance import fits, layers
from videorl.recipes.kinds import FOLDERS, RECIPES, shipped
from videorl.recipes.overrides import Overrides, read_overrides
from videorl.recipes.reading import find_recipe, merged_recipe
from videorl.recipes.schema import dotted, leaves, literal
from videorl.recipes.secrets import redacted

COMMENT_COLUMN = 56


@dataclass(frozen=True)
class Kind:
    """One kind of recipe, and what reads it."""

    schema: Any
    """The dataclass of its settings."""
    load: Callable[[str, Overrides], Any]
    """Path and overrides -> a validated recipe."""

    @property
    def command(self) -> str:
        """The command that reads it."""
        return str(self.schema.command)


def find_any(kinds: Sequence[Kind], name_or_path: str) -> tuple[Kind, Path]:
    """Return the kind and the file of a recipe.

    Args:
        kinds: To choose from: the first that has a recipe of this name, or whose settings the
            file has.
        name_or_path: The name of a shipped recipe, or the path of a file.

    Raises:
        ConfigError: There is no such recipe.
    """
    for kind in kinds:
        if (FOLDERS[kind.command] / f"{name_or_path}.yaml").is_file():
            return kind, find_recipe(name_or_path, FOLDERS[kind.command])
    # An unknown name is refused with the names of the kind that has the most like it.
    known = {path.stem: kind for kind in kinds for path in shipped(kind.command)}
    near = difflib.get_close_matches(Path(name_or_path).stem, known, n=1, cutoff=0.5)
    path = find_recipe(name_or_path, FOLDERS[(known[near[0]] if near else kinds[0]).command])
    return next((kind for kind in kinds if _reads(kind, path)), kinds[0]), path


def explained(kind: Kind, path: Path, overrides: Overrides = ()) -> str:
    """Return every setting of a recipe as YAML, with the place it comes from as a comment.

    That is `default`, `family NAME`, a file, or `override`.
    References (`${...}`) are resolved, secrets are left out as in a run folder's `config.yaml`, and
    a required key that nothing sets is `???`.

    Raises:
        ConfigError: The recipe, or an override, is not valid.
    """
    try:
        merged = merged_recipe(kind.schema, path, overrides)
        is_complete = not OmegaConf.missing_keys(merged)
        settings: Any = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    if is_complete:
        kind.load(str(path), overrides)  # for its errors: values out of range, contradictions
    text = OmegaConf.to_yaml(OmegaConf.create(redacted(literal(settings))))
    sources = _sources(kind, path, overrides)
    of_family = left_to_family(merged, kind.schema, sources)
    for key, value in of_family.items():
        sources |= dict.fromkeys(leaves(value, key), f"family {merged.policy.family}")
    return _commented(text, sources)


def _reads(kind: Kind, path: Path) -> bool:
    try:
        return fits(layers(path, kind.schema)[-1].settings, kind.schema)
    except ConfigError:
        return False


def _sources(kind: Kind, path: Path, overrides: Overrides) -> dict[str, str]:
    """Return dotted key -> where its value was set last; keys that have their default are left out.

    What is replaced whole has its new giver, and defaults where that is silent.
    """
    sources: dict[str, str] = {}
    for layer in layers(path, kind.schema):
        sources |= dict.fromkeys(leaves(layer.given), _label(layer.path))
        kept = set(leaves(layer.settings))
        sources = {key: place for key, place in sources.items() if key in kept}
    for override in read_overrides(overrides):
        key, value = override.key, override.plain()
        if isinstance(value, list) or key in choices(kind.schema):
            replaced = f"{key}."
            sources = {k: place for k, place in sources.items() if not k.startswith(replaced)}
        sources |= dict.fromkeys(leaves(value, key), "override")
    return sources


def _label(path: Path) -> str:
    """Return how a file is called: a shipped one by its place among them."""
    return str(path.relative_to(RECIPES) if path.is_relative_to(RECIPES) else path)


def _commented(text: str, sources: Mapping[str, str]) -> str:
    """Return YAML with a comment after each value."""
    lines = text.splitlines()
    for line, key in _ends(yaml.compose(text)):
        lines[line] = f"{lines[line]:<{COMMENT_COLUMN}}  # {sources.get(key, 'default')}"
    return "\n".join(lines)


def _ends(node: Any, key: str = "") -> Iterator[tuple[int, str]]:
    """Yield the line on which each value ends, and its dotted key."""
    items: list[tuple[str, Any]] = []
    if isinstance(node, yaml.MappingNode):
        items = [(name.value, value) for name, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        items = [(str(index), value) for index, value in enumerate(node.value)]
    for name, value in items:
        yield from _ends(value, dotted(key, name))
    if not items:
        yield node.end_mark.line, key

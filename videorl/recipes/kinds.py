"""The kinds of recipes: which command reads each, its schema, and where the shipped ones are.

Schemas are named, not imported: the rooms that own them import this one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECIPES = Path(__file__).resolve().parent / "shipped"


@dataclass(frozen=True)
class Kind:
    """One kind of recipe. Schema and loader are `module:attribute`, imported when asked for."""

    command: str
    """The command that reads it."""
    folder: Path
    """Of the shipped recipes."""
    schema_at: str
    loader_at: str

    @property
    def schema(self) -> type:
        """The dataclass of its settings."""
        return _imported(self.schema_at)

    def load(self, path: Path, overrides: Sequence[str]) -> Any:
        """Return one of its recipes, validated.

        Raises:
            ConfigError: As `videorl.recipes.reading.load_recipe`.
        """
        loader: Callable[[str, Sequence[str]], Any] = _imported(self.loader_at)
        return loader(str(path), overrides)

    def shipped(self) -> list[Path]:
        """Return the files of its shipped recipes, by name."""
        return sorted(self.folder.glob("*.yaml"))


KINDS = (
    Kind("train", RECIPES, "videorl.config:Recipe", "videorl.recipes.reading:load_recipe"),
    Kind(
        "train_reward",
        RECIPES / "rewards",
        "videorl.reward_training.config:RewardRecipe",
        "videorl.reward_training.recipes:load_reward_recipe",
    ),
    Kind(
        "train_latent_reward",
        RECIPES / "latent_rewards",
        "videorl.guidance.recipe:LatentRewardRecipe",
        "videorl.guidance.recipe:load_latent_reward_recipe",
    ),
)


def kind_of(schema: type) -> Kind:
    """Return the kind that has a schema; every schema of a recipe has one."""
    place = f"{schema.__module__}:{schema.__qualname__}"
    return next(kind for kind in KINDS if kind.schema_at == place)


def headline(path: Path) -> tuple[str, str]:
    """Return what a shipped recipe says of itself in the comments above its settings.

    Returns:
        Its description, which is the first line, and how far it was verified (`# verified: …`).
    """
    comments = list(_comments(path))
    verified = (line.removeprefix("verified: ") for line in comments if line[:10] == "verified: ")
    return next(iter(comments), "no description"), next(verified, "not said")


def _comments(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return
        yield line.removeprefix("#").strip()


def _imported(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)

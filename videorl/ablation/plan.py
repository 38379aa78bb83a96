"""From studies to runs: every arm with every seed, each different run once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videorl.ablation.studies import STUDIES, Arm, Setting, Study
from videorl.config import Recipe
from videorl.errors import ConfigError
from videorl.recipes.fingerprint import frozen_settings, is_default
from videorl.recipes.overrides import Override
from videorl.recipes.reading import load_recipe

_FORMAT = 1
"""Format of a result. It is part of the digest: results of another format are not read."""

SHORT: dict[str, Setting] = {
    "prompts.per_round": 5,
    "archive.videos": "none",
    "checkpoint.interval": 8,
    "checkpoint.keep": 1,
    "evaluation.num_prompts": 32,
    "evaluation.samples": 2,
    "evaluation.best_of": 2,
    "evaluation.num_videos": 0,
}
"""What all arms change in their recipes, besides the number of steps."""


@dataclass(frozen=True)
class Run:
    """An arm with a seed; without steps, the arm's base."""

    label: str
    """The first study and arm that need it, for people to read."""
    arm: Arm
    recipe: Recipe
    stops: tuple[int, ...]
    """Optimizer steps after which the held-out prompts are sampled, in order; (0,) = the base."""

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that decides the result, by dotted key."""
        return {
            **frozen_settings(self.recipe),
            "num_steps": self.recipe.num_steps,
            "ablation.pairs": self.arm.pairs,
            "ablation.stops": list(self.stops),
            "ablation.format": _FORMAT,
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the settings that differ from the schema's defaults.

        A setting that is added to the schema later and is off by default keeps results valid.
        """
        own = {key: value for key, value in self.settings.items() if not is_default(key, value)}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def same_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Tell whether all settings that both have are equal; a default may have changed meanwhile."""
    return all(a[key] == b[key] for key in a.keys() & b.keys())


def is_older_of(settings: Mapping[str, Any], today: Mapping[str, Any]) -> bool:
    """Tell whether settings from before sections had a name's own are these of a run.

    Each section then had the settings of all objectives and rules, ReFL's a section `refl`. What
    was not chosen had no effect. Nor does a recipe's name decide anything: it may have another now.
    """
    settings = {**settings, "name": today.get("name")}
    moved = {re.sub(r"^refl\.", "objective.", key): key for key in settings}
    older = {key if key in today else name: settings[name] for key, name in moved.items()}
    added, gone = today.keys() - older.keys(), older.keys() - today.keys()
    return (
        same_settings(older, today)
        and all(is_default(key, today[key]) for key in added)
        and all(re.match(r"(objective|selection|refl)\.", key) for key in gone)
    )


def choose(names: Sequence[str]) -> dict[str, Study]:
    """Return the named studies, all without names.

    Raises:
        ConfigError: There is no such study.
    """
    if unknown := [name for name in names if name not in STUDIES]:
        raise ConfigError(f"no study {', '.join(unknown)}; there are {', '.join(STUDIES)}")
    return {name: study for name, study in STUDIES.items() if not names or name in names}


def plan(
    studies: Mapping[str, Study],
    seeds: int,
    steps: int,
    changes: Sequence[str] = (),
) -> list[Run]:
    """Return each different run once: bases first, then seed by seed, so that a part is balanced.

    Args:
        studies: What to compare, by name.
        seeds: Training seeds 0 to `seeds` - 1.
        steps: Optimizer steps of an arm of length 1.
        changes: `key=value` for all arms, after their own.
    """
    arms = [
        (f"{name}: {label}", arm)
        for name, study in studies.items()
        for label, arm in study.arms.items()
    ]
    every = [base_run(arm, steps, changes) for _, arm in arms]
    every += [arm_run(*arm, seed, steps, changes) for seed in range(seeds) for arm in arms]
    runs: dict[str, Run] = {}
    for run in every:
        runs.setdefault(run.digest, run)
    return list(runs.values())


def arm_run(label: str, arm: Arm, seed: int, steps: int, changes: Sequence[str]) -> Run:
    """Return the run of an arm with a seed; `label` is for people."""
    count, total = arm.evaluations, steps * arm.length
    stops = sorted({max(1, total * number // count) for number in range(1, count + 1)})
    return Run(label, arm, _recipe(arm, seed, steps, changes), tuple(stops))


def base_run(arm: Arm, steps: int, changes: Sequence[str]) -> Run:
    """Return the base that an arm's gains are measured from; arms of a recipe share it."""
    base = Arm(recipe=arm.recipe)
    return Run(f"base of {arm.recipe}", base, _recipe(base, 0, steps, changes), (0,))


def _recipe(arm: Arm, seed: int, steps: int, changes: Sequence[str]) -> Recipe:
    total = steps * arm.length
    settings: dict[str, Setting] = {
        **SHORT,
        "num_steps": total,
        # The same share of every run, so that arms of all lengths compare; it never reaches zero.
        "optimizer.decay_steps": max(1, total * 4 // 3),
        **arm.overrides,
        "seed": seed,
    }
    overrides = [Override(key, value) for key, value in settings.items()]
    return load_recipe(arm.recipe, [*overrides, *changes])

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
from videorl.recipes.reading import load_recipe

_FORMAT = 1
"""Of a result; another one is another digest, so that no old result is read."""

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
"""What all arms change in their recipes, beside the number of steps."""


@dataclass(frozen=True)
class Run:
    """One arm with one seed; without steps, its base."""

    label: str
    """For people: the first study and arm that need it."""
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
        """SHA-256 (hex) of the settings that are not the schema's defaults.

        So a setting that is added to the schema later, and is off by default, leaves results valid.
        """
        own = {key: value for key, value in self.settings.items() if not is_default(key, value)}
        return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def same_settings(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Tell whether all settings that both have are equal: defaults may have changed in between."""
    return all(a[key] == b[key] for key in a.keys() & b.keys())


def is_older_of(settings: Mapping[str, Any], today: Mapping[str, Any]) -> bool:
    """Tell whether settings from before sections had a name's own are these of a run.

    Each section then had the settings of all objectives and rules, ReFL's a section `refl`. What
    was not chosen had no effect.
    """
    moved = {re.sub(r"^refl\.", "objective.", key): key for key in settings}
    older = {key if key in today else name: settings[name] for key, name in moved.items()}
    added, gone = today.keys() - older.keys(), older.keys() - today.keys()
    return (
        any(key.startswith("refl.") for key in settings)
        and same_settings(older, today)
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
        studies: By name.
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
    every += [arm_run(*one, seed, steps, changes) for seed in range(seeds) for one in arms]
    runs: dict[str, Run] = {}
    for run in every:
        runs.setdefault(run.digest, run)
    return list(runs.values())


def arm_run(label: str, arm: Arm, seed: int, steps: int, changes: Sequence[str]) -> Run:
    """Return the run of one arm with one seed."""
    count, total = arm.evaluations, steps * arm.length
    stops = sorted({max(1, total * number // count) for number in range(1, count + 1)})
    return Run(label, arm, _recipe(arm, seed, steps, changes), tuple(stops))


def base_run(arm: Arm, steps: int, changes: Sequence[str]) -> Run:
    """Return the evaluation that an arm's gains are measured from: one for all of its recipe."""
    base = Arm(recipe=arm.recipe)
    return Run(f"base of {arm.recipe}", base, _recipe(base, 0, steps, changes), (0,))


def _recipe(arm: Arm, seed: int, steps: int, changes: Sequence[str]) -> Recipe:
    total = steps * arm.length
    settings: dict[str, Setting] = {
        **SHORT,
        "num_steps": total,
        # Over the same share of a run for all; the rate never reaches zero.
        "optimizer.decay_steps": max(1, total * 4 // 3),
        **arm.overrides,
        "seed": seed,
    }
    overrides = [f"{key}={value}" for key, value in settings.items()]
    return load_recipe(arm.recipe, [*overrides, *changes])

"""Which settings of a recipe make its numbers, and how two recipes differ in them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, Protocol

import yaml

from videorl.config import CheckpointConfig, MetricsConfig, Recipe, RewardConfig
from videorl.recipes.choices import choices, default_settings
from videorl.recipes.older import migrated
from videorl.recipes.schema import dotted


class RunRecipe(Protocol):
    """What every recipe says, whatever is trained; each is a dataclass."""

    name: str
    num_steps: int
    run_dir: str
    metrics: MetricsConfig
    checkpoint: CheckpointConfig


_MAY_CHANGE_ON_RESUME = (
    r"num_steps|run_dir|rehearsal|policy\.(gradient_checkpointing|frozen_device)"
    r"|policy\.(idle_expert|compile|context_parallel)|sampling\.(batch_size|guidance_in_one_batch)"
    r"|rewards\.\d+\.(num_workers|max_workers|num_cpus|num_gpus|max_retries|worker_timeout_s)"
    r"|rewards\.\d+\.(idle_release_s|start_timeout_s|patience_s|decode_threads|prefetch)"
    r"|rewards\.\d+\.(runtime_env|resources)(\..*)?"
    r"|learner\.(?!updates_per_round|loss_over).*|optimizer\.fused|model\.gradient_checkpointing"
    r"|archive\.(videos|every|keep_gb|timeout_s)|labels\.keep_decoded|(evaluation|fixed_prompts)\.interval"
    r"|evaluation\.base_cache"
    r"|rollouts\.canary_.*|guard\..*|(generators|encoder|cluster|checkpoint|metrics)\..*"
)
"""Settings of where, how long and how fast; all others decide what the numbers mean."""
_CHANGEABLE = (
    r"optimizer\.(learning_rate|warmup_steps|schedule|decay_steps)|objective\.beta"
    r"|rewards\.\d+\.(weight|dimension_weights\..*)|reference\.interval|evaluation\..*"
)
MAY_CHANGE = (
    "optimizer.learning_rate, .warmup_steps, .schedule and .decay_steps, objective.beta, "
    "rewards.N.weight and .dimension_weights, reference.interval, and the section evaluation"
)
"""What `may_change` allows, in words."""


def may_change(key: str) -> bool:
    """Tell whether a run in progress may change a setting, if it is asked to (`--change`)."""
    return re.fullmatch(_CHANGEABLE, key) is not None


def recipe_fingerprint(recipe: RunRecipe) -> str:
    """Return a SHA-256 (hex) of the settings that a resumed run must share with its first part.

    Free to change are the run's length and place, worker counts and resources, memory-only
    settings, checkpointing and which videos are archived. Another number of learner ranks adds up
    gradients in another order, so the numbers are then equal up to rounding.
    """
    frozen = frozen_settings(recipe)
    return hashlib.sha256(json.dumps(frozen, sort_keys=True).encode()).hexdigest()


def frozen_settings(recipe: RunRecipe) -> dict[str, Any]:
    """Return dotted key -> value of the settings that `recipe_fingerprint` is made of."""
    settings: Any = recipe
    return _frozen_settings(dataclasses.asdict(settings))


def differences(
    a_yaml: str, b_yaml: str, schema: type[RunRecipe], moved: Collection[str] = ()
) -> list[str]:
    """Return `key: a -> b` for each setting that `differing` returns."""
    return [
        f"{key}: {'unset' if a is None else a} -> {'unset' if b is None else b}"
        for key, (a, b) in differing(a_yaml, b_yaml, schema, moved).items()
    ]


def differing(
    a_yaml: str, b_yaml: str, schema: type[RunRecipe], moved: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Return key -> both values of each setting that a resume must not change and that differs.

    None stands for one that a recipe does not have. A setting that one of them lacks was added to
    the schema between them: it has its default there.

    Args:
        a_yaml: A recipe.
        b_yaml: Another.
        schema: Of both.
        moved: Settings that name different places with the same content.
    """
    a, b = (_frozen_settings(migrated(yaml.safe_load(text), schema)) for text in (a_yaml, b_yaml))
    changed = {key for key in a.keys() & b.keys() if a[key] != b[key]}
    changed |= {key for key in a.keys() ^ b.keys() if not is_default(key, (a | b)[key], schema)}
    return {key: (a.get(key), b.get(key)) for key in sorted(changed - {*moved})}


def is_default(key: str, value: Any, schema: type[RunRecipe] = Recipe) -> bool:
    """Tell whether a frozen setting, by dotted key, has the value that the schema gives it."""
    key = re.sub(r"^rewards\.\d+\.", "rewards.0.", key)
    return key in _defaults(schema) and _defaults(schema)[key] == value


@cache
def _defaults(schema: type[RunRecipe]) -> dict[str, Any]:
    made: Any = schema()
    rewards = {"rewards": [dataclasses.asdict(RewardConfig())]}
    others = {
        key: value
        for name, choice in choices(schema).items()
        for key, value in default_settings(name, choice)
    }
    return others | _frozen_settings(rewards) | _frozen_settings(dataclasses.asdict(made))


def _frozen_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted key -> value of the settings that may not change when a run is resumed."""
    return {
        key: value
        for key, value in flatten(settings)
        if not re.fullmatch(_MAY_CHANGE_ON_RESUME, key)
    }


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted key and value of each setting in a tree; empty maps and lists have none."""
    if isinstance(value, Mapping):
        items: list[tuple[str, Any]] = [(str(k), v) for k, v in value.items()]
    elif isinstance(value, list):
        items = [(str(i), v) for i, v in enumerate(value)]
    else:
        yield prefix, value
        return
    for name, item in items:
        yield from flatten(item, dotted(prefix, name))

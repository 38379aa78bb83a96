"""Which commit of the hub a run works with: found out once, by the process that starts it.

The recipe that workers get names commits, so that all nodes load the same, whatever is pushed
meanwhile. The run folder keeps them in `config.yaml` and `inputs.json`; a resumed run takes them
from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from videorl.files import hub
from videorl.files.inputs import Input
from videorl.files.pins import HubSetting, pin_settings
from videorl.policies.checkpoints import SHIPPED
from videorl.rewards.hub_places import base_patterns, reward_settings


def hub_settings(recipe: Any) -> Iterator[HubSetting]:
    """Yield the hub ids of a recipe of any kind, those of reward models' bases included.

    Raises:
        CheckpointError: What a checkpoint is based on cannot be asked.
    """
    if getattr(recipe, "policy", None) is not None:
        yield from policy_settings(recipe)
    if (model := getattr(recipe, "model", None)) is not None and hasattr(model, "base"):
        yield from _plain("model.base", model, "base", base_patterns(model.name))
    yield from reward_settings(getattr(recipe, "rewards", []))


def policy_settings(recipe: Any) -> Iterator[HubSetting]:
    """Yield the hub ids of a recipe's policy: all that sampling reads."""
    yield from _plain("policy.path", recipe.policy, "path")
    yield from _plain("policy.lora.initial", recipe.policy.lora, "initial")


def pin(recipe: Any, then: Mapping[str, Input]) -> dict[str, str]:
    """Put the commit into every hub id of a recipe, in place.

    Args:
        recipe: Of any kind.
        then: What the run began with, by setting; its commits are kept for ids that are the same.

    Returns:
        Setting -> the id as it was asked for, or as the default is.

    Raises:
        CheckpointError: The hub does not know an id or its revision, refuses it, or does not
            answer.
    """
    return pin_settings(hub_settings(recipe), then)


def _plain(
    key: str, section: Any, attribute: str, patterns: Sequence[str] | None = None
) -> Iterator[HubSetting]:
    value = getattr(section, attribute)
    if value is None or value in SHIPPED or hub.local_path(value).exists():
        return
    if (name := hub.parse(value)) is not None:
        yield HubSetting(key, name, lambda text: setattr(section, attribute, text), patterns)

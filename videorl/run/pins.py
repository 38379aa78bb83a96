"""Which commit of the hub a run works with: found out once, by the process that starts it.

The recipe that workers get names commits, so that all nodes load the same, whatever is pushed
meanwhile. The run folder keeps them in `config.yaml` and `inputs.json`; a resumed run takes them
from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from videorl.config import RewardConfig
from videorl.files import hub
from videorl.files.inputs import Input
from videorl.policies.checkpoints import SHIPPED
from videorl.rewards.hub_places import hub_places

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubSetting:
    """A setting that names a repository of the hub, or takes a default that does."""

    key: str
    name: hub.HubId
    put: Callable[[str], None]
    """Changes the setting."""
    patterns: Sequence[str] | None = None
    """Globs of the files of a reward model that are read; None = all."""


def hub_settings(recipe: Any) -> Iterator[HubSetting]:
    """Yield the hub ids of a recipe of any kind, those of reward models' bases included.

    Raises:
        CheckpointError: What a checkpoint is based on cannot be asked.
    """
    if (policy := getattr(recipe, "policy", None)) is not None:
        yield from _plain("policy.path", policy, "path")
        yield from _plain("policy.lora.initial", policy.lora, "initial")
    if (model := getattr(recipe, "model", None)) is not None and hasattr(model, "base"):
        yield from _plain("model.base", model, "base")
    rewards: list[RewardConfig] = getattr(recipe, "rewards", [])
    for number, reward in enumerate(rewards):
        for place in hub_places(reward, f"rewards.{number}"):
            where = place.option if place.option == "path" else f"options.{place.option}"
            put = _put(reward, place.option)
            yield HubSetting(f"rewards.{number}.{where}", place.name, put, place.patterns)


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
    asked: dict[str, str] = {}
    for setting in hub_settings(recipe):
        known = then.get(setting.key)
        name = setting.name
        if known is not None and known.place == str(name):
            kept = hub.HubId(name.repository, known.content.digest, name.file)
            name = kept if kept.is_commit else name
        found = hub.resolved(name, setting.key)
        if found != setting.name:
            logger.info("%s: %s is %s", setting.key, setting.name, found.revision)
        asked[setting.key] = str(setting.name)
        setting.put(str(found))
    return asked


def _plain(key: str, section: Any, attribute: str) -> Iterator[HubSetting]:
    value = getattr(section, attribute)
    if value is None or value in SHIPPED or hub.local_path(value).exists():
        return
    if (name := hub.parse(value)) is not None:
        yield HubSetting(key, name, lambda text: setattr(section, attribute, text))


def _put(reward: RewardConfig, option: str) -> Callable[[str], None]:
    if option == "path":
        return lambda text: setattr(reward, "path", text)
    return lambda text: reward.options.__setitem__(option, text)

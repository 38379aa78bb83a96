"""Settings that name repositories of the hub, and how each of them gets its commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from videorl.files import hub
from videorl.files.inputs import Input

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


def pin_settings(settings: Iterable[HubSetting], then: Mapping[str, Input]) -> dict[str, str]:
    """Put the commit into every setting.

    Args:
        settings: Changed one after the other.
        then: What was noted before, by setting; its commits are kept for ids that are the same.

    Returns:
        Setting -> the id as it was asked for, or as the default is.

    Raises:
        CheckpointError: The hub does not know an id or its revision, refuses it, or does not
            answer.
    """
    asked: dict[str, str] = {}
    for setting in settings:
        known = then.get(setting.key)
        name = setting.name
        found = None
        if known is not None and known.place == str(name):
            found = hub.HubId(name.repository, known.content.digest, name.file)
        elif known is not None and known.content.digest == name.revision:
            found = name
        if found is None or not found.is_commit:
            found = hub.resolved(name, setting.key)
        if found != setting.name:
            logger.info("%s: %s is %s", setting.key, setting.name, found.revision)
        asked[setting.key] = str(setting.name)
        setting.put(str(found))
    return asked

"""What a reward model is loaded from, known by content."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from videorl.config import RewardConfig
from videorl.files.content import (
    Content,
    content_of,
    content_of_checkpoint,
    content_of_code,
)
from videorl.files.hub import local_path, parse
from videorl.files.inputs import CODE
from videorl.rewards import MODELS
from videorl.rewards.checkpoints import SHIPPED
from videorl.settings.plugins import source_of


def reward_inputs(
    rewards: Sequence[RewardConfig], *, fresh: bool = False
) -> Iterator[tuple[str, str, Content | None]]:
    """Yield (setting, place, content) of the checkpoints and files of reward models.

    Options that name a file or folder here count too, whatever the model does with them.

    Args:
        rewards: The models; a setting is `rewards.N.path` or `rewards.N.options.NAME`, or
            `rewards.N.name` with `CODE` after it.
        fresh: As for `videorl.files.content.file_digest`.
    """
    for number, reward in enumerate(rewards):
        code = content_of_code(reward.name, source_of(reward.name), fresh=fresh)
        yield f"rewards.{number}.name{CODE}", reward.name, code
        known = MODELS.get(reward.name)
        if path := reward.path or (known.published if known else None):
            content = content_of_checkpoint(path, SHIPPED, fresh=fresh)
            yield f"rewards.{number}.path", path, content
        for name, value in reward.options.items():
            if isinstance(value, str) and (content := _content(value, fresh)) is not None:
                yield f"rewards.{number}.options.{name}", value, content


def _content(value: str, fresh: bool) -> Content | None:
    """Return the content of an option that names a place here, or a commit of the hub."""
    if _is_place(value):
        return content_of(local_path(value), fresh=fresh)
    name = parse(value)
    return None if name is None or not name.is_commit else content_of_checkpoint(value, {})


def _is_place(value: str) -> bool:
    """Tell whether an option names a file or folder; a bare word such as `all` names no folder."""
    try:
        path = local_path(value)
        return path.is_file() or (os.sep in value and path.is_dir())
    except (OSError, ValueError, RuntimeError):
        return False

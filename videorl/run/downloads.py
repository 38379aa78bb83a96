"""What a recipe takes from the hub, file by file, and how much of it is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from videorl.config import Recipe
from videorl.files import hub
from videorl.policies import adapter_files, checkpoints, load_family
from videorl.run.pins import HubSetting, hub_settings


@dataclass(frozen=True, slots=True)
class Download:
    """The files of one setting."""

    key: str
    name: hub.HubId
    """With its commit."""
    files: Sequence[str]
    bytes_here: int
    bytes_missing: int


def downloads(recipe: Recipe) -> list[Download]:
    """Return what a node needs of the hub; nothing but small configuration files is downloaded.

    Raises:
        CheckpointError: The hub does not know an id, refuses it or does not answer, or what it has
            cannot be used.
        ConfigError: The policy is of another family.
    """
    return [_download(recipe, setting) for setting in hub_settings(recipe)]


def _download(recipe: Recipe, setting: HubSetting) -> Download:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import filter_repo_objects

    name = hub.resolved(setting.name, setting.key)
    sizes = hub.file_sizes(name, setting.key)
    if setting.key == "policy.path":
        pipeline = load_family(recipe.policy.family).pipeline_class.__name__
        files = checkpoints.files_needed(name, checkpoints.PARTS, pipeline)
    elif setting.key == "policy.lora.initial":
        files = adapter_files.files_needed(name)
    else:
        patterns: Any = None if setting.patterns is None else list(setting.patterns)
        files = list(filter_repo_objects(list(sizes), allow_patterns=patterns))
    here = [
        file
        for file in files
        if isinstance(try_to_load_from_cache(name.repository, file, revision=name.revision), str)
    ]
    total, there = (sum(sizes.get(file, 0) for file in some) for some in (files, here))
    return Download(setting.key, name, files, there, total - there)

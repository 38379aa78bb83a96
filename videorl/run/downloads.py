"""What comes from the hub, file by file, and how much of it is on this machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from videorl.files import hub
from videorl.files.pins import HubSetting
from videorl.policies import adapter_files, checkpoints, load_family
from videorl.policies.layouts import FAMILY_OF, kind_of
from videorl.run.pins import hub_settings

POLICY = "--policy"
"""The key of a policy that no recipe names."""


@dataclass(frozen=True, slots=True)
class Download:
    """The files of one setting."""

    key: str
    asked: hub.HubId
    """As it was named."""
    name: hub.HubId
    """With its commit."""
    files: Sequence[str]
    bytes_here: int
    bytes_missing: int


def downloads_of_recipe(recipe: Any) -> list[Download]:
    """Return what a node needs of the hub for a recipe of any kind.

    Raises:
        CheckpointError: As `downloads`.
        ConfigError: The policy is of another family.
    """
    from videorl.policies.family import pipeline_kind

    policy = getattr(recipe, "policy", None)
    pipeline = None if policy is None else pipeline_kind(load_family(policy.family))
    return downloads(hub_settings(recipe), pipeline)


def downloads(settings: Iterable[HubSetting], pipeline: str | None = None) -> list[Download]:
    """Return what settings take from the hub; only small configuration files are downloaded.

    Args:
        settings: Of a recipe; or with the key `POLICY`.
        pipeline: Class of the diffusers pipeline that a policy must be; None = any.

    Raises:
        CheckpointError: The hub does not know an id, refuses it or does not answer, or what it has
            cannot be used.
        ConfigError: A policy is of another class.
    """
    return [_download(setting, pipeline) for setting in settings]


def _download(setting: HubSetting, pipeline: str | None) -> Download:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import filter_repo_objects

    name = hub.resolved(setting.name, setting.key)
    sizes = hub.file_sizes(name, setting.key)
    if setting.key == POLICY:
        files = checkpoints.files_needed(name, checkpoints.PARTS, None)
        found = kind_of(hub.read_json(name, "model_index.json", POLICY))
        # Of a known class, what else is wrong is said before its weights come.
        if found in FAMILY_OF:
            checkpoints.files_needed(name, checkpoints.PARTS, found)
    elif setting.key == "policy.path":
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
    return Download(setting.key, setting.name, name, files, there, total - there)

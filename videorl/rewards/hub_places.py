"""What reward models take from the Hugging Face hub: their checkpoints and small base models."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from videorl.config import RewardConfig
from videorl.files import hub
from videorl.files.pins import HubSetting
from videorl.rewards import MODELS
from videorl.rewards.checkpoints import SHIPPED, read_json
from videorl.settings.plugins import find

_PATTERNS: dict[str, tuple[str, str]] = {
    "video_reward": ("", "videorl.rewards.video_reward.model:BASE_FILES"),
    "video_score": ("videorl.rewards.video_score.model:CHECKPOINT_FILES", ""),
    "vision_reward": ("videorl.rewards.vision_reward.model:CHECKPOINT_FILES", ""),
    "laion_aesthetic": ("", "videorl.rewards.images.laion_aesthetic:CLIP_FILES"),
    "pick_score": (
        "videorl.rewards.images.pick_score:CHECKPOINT_FILES",
        "videorl.rewards.images.clip_preference:BASE_FILES",
    ),
    "hps_v2": ("", "videorl.rewards.images.clip_preference:BASE_FILES"),
    "image_reward": (
        "videorl.rewards.images.image_reward:CHECKPOINT_FILES",
        "videorl.rewards.images.image_reward:BASE_FILES",
    ),
}
"""Model -> where the globs of its checkpoint's and its base's files are; empty = all files."""


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A repository that a reward model reads."""

    option: str
    """`path`, or the option of the loader: `base`."""
    name: hub.HubId
    patterns: Sequence[str] | None
    """Globs of the files that are read; None = all."""


def hub_places(reward: RewardConfig, where: str) -> Iterator[HubPlace]:
    """Yield what a built-in reward model reads from the hub; local folders are left out.

    Asking what VideoReward's base is takes its `model_config.json` from the hub. Models of the
    user's own know themselves what they read.

    Args:
        reward: The model.
        where: Its setting, such as `rewards.0`, for errors.

    Raises:
        CheckpointError: The hub does not know the checkpoint, or does not answer.
    """
    known = MODELS.get(reward.name)
    if known is None or not known.reads_checkpoint:
        return
    path = reward.path or known.published or ""
    own, of_base = _PATTERNS[reward.name]
    if (name := _on_hub(path)) is not None:
        yield HubPlace("path", name, _files(reward) or _globs(own))
        path = reward.path or path  # with its commit by now, if whoever asks puts it in
    base = reward.options.get("base") or _base_of(reward, path, where)
    if isinstance(base, str) and (name := _on_hub(base)) is not None:
        yield HubPlace("base", name, _globs(of_base))


def reward_settings(rewards: Sequence[RewardConfig]) -> Iterator[HubSetting]:
    """Yield the settings of reward models that name repositories of the hub.

    Raises:
        CheckpointError: As `hub_places`.
    """
    for number, reward in enumerate(rewards):
        for place in hub_places(reward, f"rewards.{number}"):
            where = place.option if place.option == "path" else f"options.{place.option}"
            put = _put(reward, place.option)
            yield HubSetting(f"rewards.{number}.{where}", place.name, put, place.patterns)


def base_patterns(model: str) -> Sequence[str] | None:
    """Return globs of the files that the training of a reward model reads of its base; None = all.

    Args:
        model: A name in `videorl.reward_training.tasks.TASKS`.
    """
    return _globs(_PATTERNS["video_score"][0]) if model == "video_score" else None


def _put(reward: RewardConfig, option: str) -> Callable[[str], None]:
    if option == "path":
        return lambda text: setattr(reward, "path", text)
    return lambda text: reward.options.__setitem__(option, text)


def _base_of(reward: RewardConfig, path: str, where: str) -> str | None:
    """Return the base that the loader takes where the recipe names none."""
    if reward.name == "video_reward":
        return _base_of_video_reward(path, where)
    loader = find(reward.name, {key: model.loader for key, model in MODELS.items()}, where)
    parameter = inspect.signature(loader).parameters.get("base")
    return parameter.default if parameter is not None else None


def _base_of_video_reward(path: str, where: str) -> str | None:
    from videorl.rewards.video_reward.checkpoint import SETTINGS_FILE

    if (name := _on_hub(path)) is None:
        folder = SHIPPED.get(path, hub.local_path(path))
        folders = [each for each in (folder, folder.parent) if (each / SETTINGS_FILE).is_file()]
        # What lacks its settings is refused by the loader, which says more.
        if not folders or (folders[0] / "base/config.json").is_file():
            return None
        content = read_json(folders[0] / SETTINGS_FILE)
    else:
        if "base/config.json" in hub.file_names(name, f"{where}.path"):
            return None
        content = hub.read_json(name, SETTINGS_FILE, f"{where}.path")
    return content.get("model_config", {}).get("model_name_or_path")


def _files(reward: RewardConfig) -> Sequence[str] | None:
    """Return the only file that is read of a repository with several."""
    if reward.name != "hps_v2":
        return None
    from videorl.rewards.images.hps_v2 import FILES

    return [FILES[version] for version in FILES if version == reward.options.get("version", "v2.1")]


def _globs(where: str) -> Sequence[str] | None:
    if not where:
        return None
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _on_hub(path: str) -> hub.HubId | None:
    if path in SHIPPED or hub.local_path(path).exists():
        return None
    return hub.parse(path)

"""The reward models: one file or folder each, one line each in `MODELS`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from videorl.errors import ConfigError, RewardError
from videorl.protocols import RewardModel
from videorl.settings.plugins import accepts, find, is_plugin, lacks, unknown


@dataclass(frozen=True, slots=True)
class Known:
    """A built-in reward model; its module is imported when it is loaded."""

    loader: str
    """`module:attribute` of a loader(path, **options), or loader(**options) where no path is
    read."""
    published: str | None = None
    """Hub id of the published checkpoint, if it can be loaded as it is."""
    reads_checkpoint: bool = True
    has_gradient: bool = False
    """It is a `videorl.protocols.DifferentiableReward`."""


MODELS: dict[str, Known] = {
    "moving_shapes": Known(
        "videorl.rewards.moving_shapes:MovingShapesReward", reads_checkpoint=False
    ),
    "video_reward": Known(
        "videorl.rewards.video_reward.model:load_video_reward",
        published="KlingTeam/VideoReward",
        has_gradient=True,
    ),
    "video_score": Known(
        "videorl.rewards.video_score.model:VideoScore", published="TIGER-Lab/VideoScore"
    ),
    "vision_reward": Known(
        "videorl.rewards.vision_reward.model:VisionReward", published="THUDM/VisionReward-Video"
    ),
    "laion_aesthetic": Known(
        "videorl.rewards.images.laion_aesthetic:load_laion_aesthetic", has_gradient=True
    ),
    "pick_score": Known(
        "videorl.rewards.images.pick_score:load_pick_score",
        published="yuvalkirstain/PickScore_v1",
        has_gradient=True,
    ),
    "hps_v2": Known(
        "videorl.rewards.images.hps_v2:load_hps_v2", published="xswu/HPSv2", has_gradient=True
    ),
    "image_reward": Known(
        "videorl.rewards.images.image_reward:load_image_reward",
        published="THUDM/ImageReward",
        has_gradient=True,
    ),
}
"""Name in `rewards[].name` -> the model; `module:attribute` there names one of your own."""

DIFFERENTIABLE = tuple(name for name, model in MODELS.items() if model.has_gradient)
"""Those of `MODELS` that are `videorl.protocols.DifferentiableReward`s."""


def load(name: str, path: str | None = None, **options: Any) -> RewardModel:
    """Load a reward model.

    Args:
        name: One of `MODELS`, or `module:attribute`.
        path: Folder or hub id of its checkpoint; None = its own default.
        options: Keyword arguments of the model's loader (`rewards[].options`).

    Raises:
        ConfigError: The name or an option is unknown, or there is no path where one is needed.
        CheckpointError: The checkpoint cannot be read.
        RewardError: What was loaded is no reward model.
    """
    where = "rewards[].name"
    loader = find(name, {key: model.loader for key, model in MODELS.items()}, where)
    if (known := MODELS.get(name)) is not None:
        path = path or known.published
        if known.reads_checkpoint and path is None:
            raise ConfigError(f"reward {name} needs the path of its checkpoint (rewards[].path)")
        if not known.reads_checkpoint and path is not None:
            raise ConfigError(f"reward {name} reads no checkpoint, got path {path!r}")
    try:
        model = loader(*(() if path is None else (path,)), **options)
    except TypeError as error:
        raise ConfigError(f"rewards[].options of {name}: {error}") from error
    if is_plugin(name) and (missing := lacks(model, RewardModel)):
        raise RewardError(f"{where}={name} made no reward model: {', '.join(missing)}")
    return model


def problem_of(where: str, name: str, path: str | None, options: Mapping[str, Any]) -> str | None:
    """Return what can be seen to be wrong with a model that a recipe names, before it is loaded.

    Args:
        where: The setting that names it, for the message.
        name: One of `MODELS`, or `module:attribute`.
        path: Of its checkpoint.
        options: What its loader takes besides the path.
    """
    if not is_plugin(name):
        return None if name in MODELS else unknown(name, MODELS, where)
    try:
        loader = find(name, {}, where)
    except ConfigError as error:
        return str(error)
    if inspect.isclass(loader) and (missing := lacks(loader, RewardModel)):
        return f"{where}={name} is no reward model: {', '.join(missing)}"
    num_arguments = 0 if path is None else 1
    if not accepts(loader, num_arguments, **options):
        given = ", ".join([*["path"] * num_arguments, *options])
        return (
            f"{where}={name} cannot be called with ({given}), its path and options: it takes "
            f"{inspect.signature(loader)}"
        )
    return None


def is_differentiable(name: str) -> bool:
    """Tell whether a named model may be a `DifferentiableReward`; a function's result is not known.

    Raises:
        ConfigError: There is no such model.
    """
    if not is_plugin(name):
        return name in DIFFERENTIABLE
    loader = find(name, {}, "rewards[].name")
    return not inspect.isclass(loader) or hasattr(loader, "score_pixels")

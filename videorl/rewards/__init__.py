"""The reward models, by name: `MODELS` has a line for each."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.protocols import RewardModel


def _moving_shapes(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.moving_shapes import MovingShapesReward

    if path is not None:
        raise ConfigError(f"reward moving_shapes reads no checkpoint, got path {path!r}")
    return MovingShapesReward(**options)


def _video_reward(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.video_reward.model import load_video_reward

    return load_video_reward(path or "KlingTeam/VideoReward", **options)


def _video_score(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.video_score.model import VideoScore

    return VideoScore(path or "TIGER-Lab/VideoScore", **options)


def _vision_reward(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.vision_reward.model import VisionReward

    return VisionReward(path or "THUDM/VisionReward-Video", **options)


def _laion_aesthetic(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.images.laion_aesthetic import load_laion_aesthetic

    if path is None:
        raise ConfigError("reward laion_aesthetic: give the path of the predictor's .pth file")
    return load_laion_aesthetic(path, **options)


def _pick_score(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.images.pick_score import load_pick_score

    return load_pick_score(path or "yuvalkirstain/PickScore_v1", **options)


def _hps_v2(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.images.hps_v2 import load_hps_v2

    return load_hps_v2(path or "xswu/HPSv2", **options)


def _image_reward(path: str | None, **options: Any) -> RewardModel:
    from videorl.rewards.images.image_reward import load_image_reward

    return load_image_reward(path or "THUDM/ImageReward", **options)


MODELS: dict[str, Callable[..., RewardModel]] = {
    "moving_shapes": _moving_shapes,
    "video_reward": _video_reward,
    "video_score": _video_score,
    "vision_reward": _vision_reward,
    "laion_aesthetic": _laion_aesthetic,
    "pick_score": _pick_score,
    "hps_v2": _hps_v2,
    "image_reward": _image_reward,
}
"""Name in `rewards[].name` -> loader(path, **options), which does the heavy imports."""


DIFFERENTIABLE = ("video_reward", "laion_aesthetic", "pick_score", "hps_v2", "image_reward")
"""Those of `MODELS` that implement `videorl.protocols.DifferentiableReward`."""


def load(name: str, path: str | None = None, **options: Any) -> RewardModel:
    """Load a reward model.

    Args:
        name: One of `MODELS`.
        path: Folder or hub id of the checkpoint; None = the model's default.
        options: Keyword arguments of the loader (`rewards[].options`).

    Raises:
        ConfigError: The name or an option is unknown, or an option has an impossible value.
        CheckpointError: The checkpoint cannot be read.
    """
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.0)
        raise ConfigError(
            f"rewards[].name: unknown reward model {name!r}; did you mean {near[0]!r}? "
            f"Known: {', '.join(sorted(MODELS))}"
        )
    try:
        return MODELS[name](path, **options)
    except TypeError as error:
        raise ConfigError(f"rewards[].options of {name}: {error}") from error

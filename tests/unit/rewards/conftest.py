"""Tiny checkpoints in the published layouts, with what the authors' code computes from them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

IMAGE_REWARDS = ("laion_aesthetic", "pick_score", "hps_v2", "image_reward")


@pytest.fixture(scope="session")
def vision_reward_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CogVLM2-Video with two layers. Never write to it; its README says what it proves."""
    from tests.reward_cases import unpack_vision_reward

    folder = tmp_path_factory.mktemp("checkpoints") / "vision_reward"
    unpack_vision_reward(folder)
    return folder


@pytest.fixture(scope="session")
def image_models(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return `path[name]` and `options[name]` of each model, and the references."""
    import torch

    from tests.blip_model import head_tensors, save_image_reward
    from tests.clip_models import save_clip, save_hps_v2

    root = tmp_path_factory.mktemp("image_rewards")
    clip: Any = save_clip(root / "clip")
    (root / "laion").mkdir()
    torch.manual_seed(4)
    heads = head_tensors(16), {"weight": torch.randn(1, 16), "bias": torch.randn(1)}
    torch.save(heads[0], root / "laion/sac+logos+ava1-l14-linearMSE.pth")
    torch.save(heads[1], root / "linear.pth")
    return SimpleNamespace(
        path=dict(
            zip(
                IMAGE_REWARDS,
                (root / "laion", root / "clip", root / "hps", root / "ir"),
                strict=True,
            )
        ),
        options={name: {"base": str(root / "clip")} for name in IMAGE_REWARDS[:3]}
        | {"image_reward": {"base": str(root / "ir/bert")}},
        clip=clip,
        heads=heads,
        linear=root / "linear.pth",
        open_clip=save_hps_v2(root / "hps", clip.config.text_config.vocab_size),
        image_reward=save_image_reward(root / "ir"),
    )


@pytest.fixture(scope="session")
def load_tiny(image_models: SimpleNamespace) -> Callable[..., Any]:
    """Return a function (name, **options) that loads one of `image_models`."""
    from videorl import rewards
    from videorl.rewards.per_frame import PerFrameReward

    def load_one(name: str, **options: Any) -> Any:
        given = image_models.options[name] | options
        loaded = rewards.load(name, str(given.pop("path", image_models.path[name])), **given)
        assert isinstance(loaded, PerFrameReward)
        return loaded

    return load_one

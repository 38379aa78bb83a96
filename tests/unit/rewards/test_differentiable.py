"""Rewards of pixels with gradient: the scores of the ordinary path, and true derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.clip_models import SIDE_PX
from videorl import rewards
from videorl.config import RewardConfig
from videorl.errors import ConfigError, PromptError, RewardError, VideoError
from videorl.protocols import DifferentiableReward
from videorl.rewards import DIFFERENTIABLE, MODELS
from videorl.rewards.differentiable import CombinedReward, load_differentiable
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.rewards.per_frame import PerFrameReward
from videorl.rewards.video_reward.model import VideoReward
from videorl.rewards.video_score.model import VideoScore
from videorl.rewards.vision_reward.model import VisionReward
from videorl.types import Video

IMAGE_REWARDS = ("laion_aesthetic", "pick_score", "hps_v2", "image_reward")
PROMPTS = ["a red circle moves left", "a blue square"]
FPS = 8.0


@pytest.fixture(scope="module")
def learned() -> DifferentiableReward:
    """The shipped VideoReward of Moving Shapes, which looks at frames of 56 x 56."""
    return rewards.load("video_reward", "moving_shapes_reward")  # pyright: ignore


@pytest.fixture(params=["video_reward", *IMAGE_REWARDS])
def model(
    request: pytest.FixtureRequest, learned: DifferentiableReward, load_tiny: Callable[..., Any]
) -> DifferentiableReward:
    return learned if request.param == "video_reward" else load_tiny(request.param)


def waves(height: int, width: int, frames: int = 5) -> Tensor:
    """Return two clips of slow waves, uint8 [2, F, 3, H, W]: as smooth as videos are."""
    axes = torch.arange(float(frames)), torch.linspace(0, 3, height), torch.linspace(0, 3, width)
    t, y, x = torch.meshgrid(*axes, indexing="ij")
    channels = [torch.sin(x + 2 * y + t), torch.cos(2 * x - t), torch.sin(x * y + t / 2)]
    clip_F3HW = torch.stack(channels, 1)
    return (127.5 + 100 * torch.stack([clip_F3HW, -clip_F3HW])).to(torch.uint8)


def both_paths(model: DifferentiableReward, bytes_BF3HW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores [B, K] of pixels, and of the same as ordinary videos."""
    videos = [
        Video(np.ascontiguousarray(pixels_F3HW.permute(0, 2, 3, 1)), FPS)
        for pixels_F3HW in bytes_BF3HW
    ]
    scores = model.score(videos, PROMPTS)
    ordinary = torch.tensor(
        [[score.dimensions[name] for name in model.dimensions] for score in scores]
    )
    return model.score_pixels(bytes_BF3HW / 255, FPS, PROMPTS), ordinary


def test_pixels_that_need_no_resizing_score_alike(model: DifferentiableReward) -> None:
    side = SIDE_PX if isinstance(model, PerFrameReward) else 56
    found, ordinary = both_paths(model, waves(side, side))
    torch.testing.assert_close(found, ordinary, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (90, 121)])
def test_resized_pixels_differ_only_by_rounding(
    model: DifferentiableReward, size: tuple[int, int]
) -> None:
    found, ordinary = both_paths(model, waves(*size))
    # PIL and Qwen's processor round to 256 levels; HPSv2's own preprocessing does not.
    apart = (ordinary[0] - ordinary[1]).abs().max()
    assert (found - ordinary).abs().max() < 0.02 * apart, "of what tells the two videos apart"


def test_the_gradient_is_that_of_finite_differences(model: DifferentiableReward) -> None:
    pixels = (waves(32, 32).float() / 255).requires_grad_()
    generator = torch.Generator().manual_seed(0)
    towards = 2e-3 * torch.randn(pixels.shape, generator=generator)
    for number in range(len(model.dimensions)):
        scores_B = model.score_pixels(pixels, FPS, PROMPTS)[:, number]
        (slope,) = torch.autograd.grad(scores_B[0], pixels)
        assert slope[1].abs().max() == 0, "the other video has no part in it"
        with torch.no_grad():
            ahead, behind = (
                model.score_pixels(pixels + sign * towards, FPS, PROMPTS)[0, number]
                for sign in (1, -1)
            )
        expected = (ahead - behind).item() / 2
        assert (slope * towards).sum().item() == pytest.approx(expected, rel=0.05, abs=2e-5)


@pytest.mark.parametrize("name", IMAGE_REWARDS)
def test_frames_in_batches_have_the_gradient_of_all_at_once(
    name: str, load_tiny: Callable[..., Any]
) -> None:
    pixels_BF3HW = waves(SIDE_PX, SIDE_PX) / 255
    found: list[tuple[Tensor, Tensor]] = []
    sizes: list[int] = []
    for batch_frames in (32, 3):
        model = load_tiny(name, batch_frames=batch_frames)
        count = model.scorer.network.register_forward_pre_hook(
            lambda _, given: sizes.append(len(given[0]))
        )
        leaf = pixels_BF3HW.clone().requires_grad_()
        scores_BK = model.score_pixels(leaf, FPS, PROMPTS)
        (slope,) = torch.autograd.grad(scores_BK.sum(), leaf)
        found.append((scores_BK.detach(), slope))
        count.remove()
    assert sizes == [10, 3, 3, 3, 1, 1, 3, 3, 3], "each batch again, the last first"
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_combination_is_that_of_scores(learned: DifferentiableReward) -> None:
    weights = {"visual_quality": 2.0, "text_alignment": -1.0}
    configs = [
        RewardConfig("video_reward", label="a", weight=0.5, dimension_weights=weights),
        RewardConfig("video_reward", label="b", weight=3.0),
    ]
    combined = CombinedReward({"a": learned, "b": learned}, configs)
    pixels = waves(32, 32) / 255
    total_B, dimensions = combined(pixels, FPS, PROMPTS)
    visual, motion, text = learned.score_pixels(pixels, FPS, PROMPTS).unbind(1)
    expected = 0.5 * (2 * visual - text) + 3 * (visual + motion + text)
    torch.testing.assert_close(total_B, expected)
    torch.testing.assert_close(dimensions["b.motion_quality"], motion)
    configs[0].dimension_weights = {"beauty": 1.0}
    with pytest.raises(ConfigError, match="unknown dimension 'beauty'"):
        CombinedReward({"a": learned, "b": learned}, configs)
    loaded = load_differentiable([RewardConfig("video_reward", path="moving_shapes_reward")])
    torch.testing.assert_close(loaded(pixels, FPS, PROMPTS)[0], visual + motion + text)


def test_what_only_watches_needs_no_gradient(learned: DifferentiableReward) -> None:
    """Whole videos are scored by it elsewhere; the names of the others say that there are two."""
    followed = RewardConfig("video_reward", path="moving_shapes_reward")
    watching = RewardConfig("moving_shapes", weight=0.0, dimension_weights={"alignment": 1.0})
    pixels = waves(32, 32) / 255
    total_B, dimensions = load_differentiable([followed, watching])(pixels, FPS, PROMPTS)
    torch.testing.assert_close(total_B, load_differentiable([followed])(pixels, FPS, PROMPTS)[0])
    assert set(dimensions) == {f"video_reward.{name}" for name in learned.dimensions}
    watching.weight = 1.0
    with pytest.raises(RewardError, match="moving_shapes has no gradient: no score_pixels"):
        load_differentiable([followed, watching])
    watching = RewardConfig(f"{__name__}:make_watching", label="own", weight=0.0)
    _, dimensions = load_differentiable([followed, watching])(pixels, FPS, PROMPTS)
    assert set(dimensions) == {f"video_reward.{name}" for name in learned.dimensions}


def make_watching() -> MovingShapesReward:
    return MovingShapesReward()


def test_bad_pixels_and_prompts_are_named(learned: DifferentiableReward) -> None:
    pixels = waves(32, 32) / 255
    with pytest.raises(VideoError, match=r"expected pixels \[2 videos.*got \[1, 5, 3, 32, 32\]"):
        learned.score_pixels(pixels[:1], FPS, PROMPTS)
    with pytest.raises(VideoError, match="2 or more frames"):
        learned.score_pixels(pixels[:, :1], FPS, PROMPTS)
    with pytest.raises(VideoError, match="frames of 32×1 pixels hold no picture"):
        learned.score_pixels(pixels[:, :, :, :1], FPS, PROMPTS)
    with pytest.raises(PromptError, match="is empty"):
        learned.score_pixels(pixels, FPS, ["", "a"])


def test_the_names_are_those_of_models_that_score_pixels() -> None:
    kinds = {
        "moving_shapes": MovingShapesReward,
        "video_reward": VideoReward,
        "video_score": VideoScore,
        "vision_reward": VisionReward,
        **dict.fromkeys(IMAGE_REWARDS, PerFrameReward),
    }
    assert kinds.keys() == MODELS.keys()
    can = {name for name, kind in kinds.items() if hasattr(kind, "score_pixels")}
    assert can == set(DIFFERENTIABLE)

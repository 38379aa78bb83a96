"""Reward models: memory and work, estimated from published sizes and not counted.

Weights are parameters times two bytes. Activations and work follow from how many tokens a clip
becomes. Sizes are those of the models' published configurations, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from videorl.config import Recipe, RewardConfig
from videorl.planning.counting import Counted
from videorl.planning.memory import Memory


@dataclass(frozen=True, slots=True)
class Tower:
    """A transformer that reads tokens."""

    parameters: float
    width: int
    """Of its hidden states."""
    inner: int
    """Of its feed-forward layers."""

    def activations(self, num_tokens: float) -> float:
        """Return bytes that a forward holds: ten hidden states and three inner ones per token."""
        return 2 * num_tokens * (10 * self.width + 3 * self.inner)


@dataclass(frozen=True, slots=True)
class RewardSize:
    """One reward model: a picture tower, and a language model that reads its tokens."""

    pictures: Tower
    language: Tower | None
    patches: int
    """Of a frame, in the picture tower."""
    tokens: int
    """Of a frame, in the language model."""
    text: int
    """Tokens of questions and prompt."""
    fps: float
    """Frames looked at, per second."""
    least_frames: int
    most_frames: int


_QWEN = RewardSize(Tower(0.67e9, 1280, 5120), Tower(1.54e9, 1536, 8960), 1024, 128, 900, 2, 4, 768)
_IDEFICS = RewardSize(Tower(0.43e9, 1152, 4304), Tower(8.0e9, 4096, 14336), 2100, 64, 400, 8, 4, 16)
_COGVLM = RewardSize(Tower(4.4e9, 1792, 15360), Tower(8.0e9, 4096, 14336), 257, 66, 1100, 1, 2, 24)
_CLIP_H = RewardSize(Tower(0.99e9, 1280, 5120), None, 257, 0, 77, 2, 4, 64)
_CLIP_L = RewardSize(Tower(0.43e9, 1024, 4096), None, 257, 0, 77, 2, 4, 64)
_BLIP = RewardSize(Tower(0.48e9, 1024, 4096), None, 257, 0, 35, 2, 4, 64)

SIZES: dict[str, RewardSize] = {
    "video_reward": _QWEN,
    "video_score": _IDEFICS,
    "vision_reward": _COGVLM,
    "pick_score": _CLIP_H,
    "hps_v2": _CLIP_H,
    "laion_aesthetic": _CLIP_L,
    "image_reward": _BLIP,
}
"""Reward name -> its published size: Qwen2-VL-2B, Idefics2-8B, CogVLM2-Video, CLIP-H, CLIP-L and
BLIP. Others (Moving Shapes, and your own) are taken to need nothing."""
SMALL_CHECKPOINTS = ("moving_shapes_reward",)
"""Checkpoints that we ship, of a built-in model but tiny."""


def reward_memory(reward: RewardConfig, recipe: Recipe) -> tuple[Memory, Counted]:
    """Return one worker's memory, and the work of scoring one clip; nothing for unknown models."""
    size = None if reward.path in SMALL_CHECKPOINTS else SIZES.get(reward.name)
    if size is None:
        return Memory(0.0), Counted(0.0, 0.0)
    seconds = recipe.sampling.num_frames / recipe.sampling.fps
    most = int(reward.options.get("max_num_frames", size.most_frames))
    frames = min(max(seconds * size.fps, size.least_frames), most, recipe.sampling.num_frames)
    patches, tokens = frames * size.patches, frames * size.tokens + size.text
    weights, flops = 2 * size.pictures.parameters, 2 * size.pictures.parameters * patches
    activations = size.pictures.activations(patches)
    if size.language is not None:
        weights += 2 * size.language.parameters
        flops += 2 * size.language.parameters * tokens
        activations = max(activations, size.language.activations(tokens))
    return Memory(weights, activations=activations), Counted(activations, flops)


def is_known(reward: RewardConfig) -> bool:
    """Tell whether a reward's needs are estimated."""
    return reward.name in SIZES and reward.path not in SMALL_CHECKPOINTS

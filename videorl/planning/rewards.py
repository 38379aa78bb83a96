"""Reward models: memory and work, estimated from published sizes and not counted.

Weights are parameters times two bytes, four of image rewards unless `options.dtype` says otherwise.
Activations and work follow from how many tokens a clip becomes. Sizes are those of the models'
published configurations, rounded.
"""

from __future__ import annotations

from dataclasses import dataclass

from videorl.config import Recipe, RewardConfig
from videorl.planning.counting import Counted
from videorl.planning.sizes import Memory
from videorl.rewards.differentiable import is_followed


@dataclass(frozen=True, slots=True)
class Tower:
    """A transformer that reads tokens."""

    parameters: float
    width: int
    """Of its hidden states."""
    inner: int
    """Of its feed-forward layers."""
    layers: int = 1

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
    itemsize: int = 2
    """Bytes of a number."""


_ALL = 10**6
"""Frames: as many as there are."""
_AT_ONCE = 32
"""Frames of an image reward per forward, its option `batch_frames`."""
# A patch of Qwen2-VL spans two frames.
_QWEN = RewardSize(
    Tower(0.67e9, 1280, 5120, 32), Tower(1.54e9, 1536, 8960, 28), 512, 128, 900, 2, 4, 768
)
_IDEFICS = RewardSize(Tower(0.43e9, 1152, 4304), Tower(8.0e9, 4096, 14336), 2100, 64, 400, 8, 4, 16)
_COGVLM = RewardSize(Tower(4.4e9, 1792, 15360), Tower(8.0e9, 4096, 14336), 257, 66, 1100, 1, 2, 24)
_CLIP_H = RewardSize(Tower(0.99e9, 1280, 5120, 32), None, 257, 0, 77, _ALL, 2, _ALL, 4)
_CLIP_L = RewardSize(Tower(0.43e9, 1024, 4096, 24), None, 257, 0, 77, _ALL, 2, _ALL, 4)
_BLIP = RewardSize(Tower(0.48e9, 1024, 4096, 24), None, 257, 0, 35, _ALL, 2, _ALL, 4)

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
    if (size := _size(reward)) is None:
        return Memory(0.0), Counted(0.0, 0.0)
    frames, at_once = _frames(reward, size, recipe)
    tokens = frames * size.tokens + size.text
    scale = _itemsize(reward, size) / 2
    activations = size.pictures.activations(at_once * size.patches)
    flops = 2 * size.pictures.parameters * frames * size.patches
    if size.language is not None:
        flops += 2 * size.language.parameters * tokens
        activations = max(activations, size.language.activations(tokens))
    activations *= scale
    return Memory(_weights(reward, size), activations=activations), Counted(activations, flops)


def reward_with_gradient(reward: RewardConfig, recipe: Recipe) -> tuple[float, Counted]:
    """Return the bytes of a reward's weights, and what a clip needs forward and backward.

    Every layer's activations are held; of an image reward those of the frames of one forward, each
    of which is done again in the backward pass. Weights have no gradient, so going backward costs
    as much as going forward.
    """
    if (size := _size(reward)) is None:
        return 0.0, Counted(0.0, 0.0)
    frames, at_once = _frames(reward, size, recipe)
    tokens = frames * size.tokens + size.text
    held = size.pictures.layers * size.pictures.activations(at_once * size.patches)
    if size.language is not None:
        held += size.language.layers * size.language.activations(tokens)
    passes = 3 if at_once < frames else 2
    flops = passes * reward_memory(reward, recipe)[1].flops
    return _weights(reward, size), Counted(held * _itemsize(reward, size) / 2, flops)


def rewards_with_gradient(recipe: Recipe) -> tuple[float, Counted]:
    """Return the same of all rewards that a learner of ReFL loads: see `is_followed`."""
    weights, total = 0.0, Counted(0.0, 0.0)
    for reward in filter(is_followed, recipe.rewards):
        num_bytes, needs = reward_with_gradient(reward, recipe)
        weights += num_bytes
        total = Counted(total.num_bytes + needs.num_bytes, total.flops + needs.flops)
    return weights, total


def _size(reward: RewardConfig) -> RewardSize | None:
    return None if reward.path in SMALL_CHECKPOINTS else SIZES.get(reward.name)


def _frames(reward: RewardConfig, size: RewardSize, recipe: Recipe) -> tuple[float, float]:
    """Return how many frames of a clip are looked at, and how many of them in one forward."""
    options, sampling = reward.options, recipe.sampling
    most = int(options.get("max_num_frames") or options.get("num_frames") or size.most_frames)
    wanted = max(sampling.num_frames / sampling.fps * size.fps, size.least_frames)
    frames = min(wanted, most, sampling.num_frames)
    if size.language is not None:
        return frames, frames
    return frames, min(frames, int(options.get("batch_frames", _AT_ONCE)))


def itemsize(reward: RewardConfig) -> int:
    """Return the bytes of a number of a reward's estimate; 4 for those that nothing is known of."""
    return 4 if (size := _size(reward)) is None else _itemsize(reward, size)


def _itemsize(reward: RewardConfig, size: RewardSize) -> int:
    kind = reward.options.get("dtype")
    return size.itemsize if kind is None else {"float32": 4}.get(kind, 2)


def _weights(reward: RewardConfig, size: RewardSize) -> float:
    towers = [size.pictures, *([size.language] if size.language else [])]
    return _itemsize(reward, size) * sum(tower.parameters for tower in towers)


def is_known(reward: RewardConfig) -> bool:
    """Tell whether a reward's needs are estimated."""
    return reward.name in SIZES and reward.path not in SMALL_CHECKPOINTS

"""Picture and sound of LTX-2 in one tensor, and its pipeline around parts that are not loaded.

A candidate's latents [B, C, T + E, H, W] are those of the picture, T frames, and behind them those
of the sound in E more frames. As tokens, the order is that of the transformer: the picture's T·H·W,
then the sound's L of D numbers one after the other, then zeros that fill the last frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from videorl.policies.steps import Change, StepCallback


@dataclass(frozen=True)
class Shape:
    """Sizes of a video's latents, and of its sound's."""

    frames: int
    """T, of the picture alone."""
    rows: int
    columns: int
    channels: int
    sound_tokens: int
    """L."""
    sound_width: int
    """D, numbers per token."""

    @property
    def tokens(self) -> int:
        """Return the number of the picture's tokens."""
        return self.frames * self.rows * self.columns

    @property
    def sound_frames(self) -> int:
        """Return the number E of frames that the sound takes."""
        numbers = self.sound_tokens * self.sound_width
        return math.ceil(numbers / (self.channels * self.rows * self.columns))


def join(
    shape: Shape, picture_BNC: Tensor, sound_BLD: Tensor, rest: Tensor | None = None
) -> Tensor:
    """Return tokens [B, (T + E) H W, C] of both.

    Args:
        shape: Of the video.
        picture_BNC: Tokens of the picture.
        sound_BLD: Tokens of the sound.
        rest: Joint tokens whose last numbers fill what is left; None = zeros.
    """
    whole = (shape.sound_frames * shape.rows * shape.columns, shape.channels)
    flat = sound_BLD.flatten(1)
    left = math.prod(whole) - flat.shape[1]
    filling = flat.new_zeros(len(flat), left) if rest is None else _last(rest, left)
    frames = torch.cat([flat, filling], dim=1).unflatten(1, whole)
    return torch.cat([picture_BNC, frames], dim=1)


def part(shape: Shape, tokens_BNC: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens of the picture and of the sound that `join` put together."""
    picture_BNC, frames = tokens_BNC[:, : shape.tokens], tokens_BNC[:, shape.tokens :]
    flat = frames.flatten(1)[:, : shape.sound_tokens * shape.sound_width]
    return picture_BNC, flat.unflatten(1, (shape.sound_tokens, shape.sound_width))


def _last(tokens_BNC: Tensor, number: int) -> Tensor:
    flat = tokens_BNC.flatten(1)
    return flat[:, flat.shape[1] - number :]


@dataclass(frozen=True)
class UnreadVAE:
    """What the pipeline asks of a VAE that is not loaded: sizes, statistics that change nothing.

    With mean 0 and deviation 1 the pipeline returns latents as its scheduler and its transformer
    have them.
    """

    config: Any
    mel_compression_ratio: int = 0
    temporal_compression_ratio: int = 0
    latents_mean: Tensor = field(default_factory=lambda: torch.zeros(1))
    latents_std: Tensor = field(default_factory=lambda: torch.ones(1))


PICTURE = UnreadVAE(SimpleNamespace(scaling_factor=1.0))
"""In the place of the picture's, while latents are sampled."""

_SOUND = {"sample_rate": 16000, "mel_hop_length": 160, "mel_bins": 64, "latent_channels": 8}
_COMPRESSION = 4
"""Of the sound, along time and along pitch: fixed in diffusers."""


def sound_vae(config: Mapping[str, Any]) -> UnreadVAE:
    """Return what the pipeline asks of the sound's VAE, whose weights are never read.

    Args:
        config: Its configuration; what it lacks is as diffusers has it, and as published.
    """
    known = SimpleNamespace(**{name: config.get(name, value) for name, value in _SOUND.items()})
    return UnreadVAE(known, _COMPRESSION, _COMPRESSION)


@dataclass(frozen=True)
class Connected:
    """In the place of the connectors: hands on what they made of a prompt when it was encoded.

    Args:
        width: Of the picture's text; the sound's comes behind it.
    """

    width: int

    def __call__(
        self, prompt_embeds: Tensor, mask: Tensor, padding_side: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the text of the picture, that of the sound, and the mask."""
        return prompt_embeds[..., : self.width], prompt_embeds[..., self.width :], mask


class Unread(nn.Module):
    """In the place of an attention whose result nothing reads."""

    def forward(self, hidden_states: Tensor, **_: Any) -> Tensor:
        """Return what it is given."""
        return hidden_states


@contextmanager
def in_place(pipeline: Any, **others: Any) -> Iterator[None]:
    """Inside the block, let a pipeline have other attributes.

    Not by `setattr`, which would note the class of each as that of a part of its checkpoint.
    """
    own = vars(pipeline)
    before = {name: own[name] for name in others if name in own}
    own.update(others)
    try:
        yield
    finally:
        for name in others:
            del own[name]
        own.update(before)


def with_sound(callback: StepCallback, shape: Shape) -> StepCallback:
    """Return a callback of the pipeline that gives `callback` the latents of both, as tokens."""

    def joined(
        pipeline: Any, step: int, time: Any, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        both = join(shape, tensors["latents"], tensors["audio_latents"])
        return callback(pipeline, step, time, {"latents": both})

    return joined


@contextmanager
def changed_velocities(pipeline: Any, shape: Shape, change: Change) -> Iterator[None]:
    """Inside the block, pass what both schedulers are given through `change`, together.

    `changed_steps` would see the picture alone, and before the sound is known. The pipeline turns
    its final prediction back to velocities, of the picture and then of the sound, before it steps
    either; there both are known. It steps the picture with the tensor that is changed here.

    Args:
        pipeline: An `LTX2Pipeline`.
        shape: Of its videos.
        change: Is called with (velocity, x_t, timestep), the first two as joint tokens.
    """
    stock = pipeline.convert_x0_to_velocity
    picture: list[Tensor] = []

    def convert(sample: Tensor, clean: Tensor, step: int, scheduler: Any) -> Tensor:
        velocity = stock(sample, clean, step, scheduler)
        if scheduler is pipeline.scheduler:
            picture[:] = [sample, velocity]
            return velocity
        x_t, both = (join(shape, *each) for each in zip(picture, (sample, velocity), strict=True))
        changed, sound = part(shape, change(both, x_t, scheduler.timesteps[step]))
        picture[1].copy_(changed)
        return sound

    with in_place(pipeline, convert_x0_to_velocity=convert):
        yield

"""Image reward models for video: the score is the mean over frames, each scored by itself.

Papers use them as baselines in this way. They do not see motion: a still picture scores as well as
a video of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from threading import Lock
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from videorl.errors import ConfigError, VideoError
from videorl.rewards.feed import Feed
from videorl.rewards.videos import (
    MIN_FRAMES,
    MIN_SIDE_PX,
    OpenVideo,
    VideoSource,
    check_aspect,
    open_videos,
)
from videorl.types import Score


class PromptReader(Protocol):
    """Turns prompts into what the network of an image scorer takes."""

    def check(self, prompts: Sequence[str]) -> None:
        """Raise `PromptError` if a prompt cannot be read."""
        ...

    def read(self, prompt: str) -> Tensor:
        """Return one tensor, of the same shape for every prompt."""
        ...


@dataclass(frozen=True, slots=True)
class ImageScorer:
    """A loaded image reward model."""

    dimension: str
    """Name of the score."""
    network: nn.Module
    """Pixels [B, 3, H, W] and read prompts [B, ...] -> scores [B] in float32, differentiable."""
    preprocess: Callable[[npt.NDArray[np.uint8]], Tensor]
    """Frames uint8 [F, H, W, 3] -> pixels [F, 3, side, side], normalised."""
    preprocess_floats: Callable[[Tensor], Tensor]
    """The same for frames [F, 3, H, W] in [0, 1], differentiable and without rounding."""
    prompts: PromptReader | None
    """None if the score does not depend on the prompt, which is then not checked either."""
    device: torch.device


class PerFrameReward:
    """Scores videos by the mean of an image reward model's scores of their frames."""

    def __init__(
        self, scorer: ImageScorer, *, num_frames: int | None = None, batch_frames: int = 32
    ) -> None:
        """Score frames with `scorer`.

        Args:
            scorer: The image reward model.
            num_frames: How many evenly spread frames to score; None = all.
            batch_frames: Frames per forward, of all videos together; bounds memory.

        Raises:
            ConfigError: One of the numbers is not above 0.
        """
        for name, value in (("num_frames", num_frames), ("batch_frames", batch_frames)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} of an image reward must be > 0, got {value}")
        self.scorer = scorer
        self.dimensions: tuple[str, ...] = (scorer.dimension,)
        self.feed = Feed()
        self._num_frames = num_frames
        self._batch_frames = batch_frames

    @torch.inference_mode()
    def score(self, videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[Score]:
        """Score each video against its prompt.

        Returns:
            Per video: the dimension and `total` are the mean over frames, `raw` holds
            `frame_indices` and `frame_scores`. Values do not depend on the batch (up to about 1e-6
            in float32).

        Raises:
            VideoError: A video cannot be scored, or the numbers of videos and prompts differ.
            PromptError: A prompt is empty or contains a special token of the model.
        """
        opened = open_videos(videos, prompts)
        with self.feed.turn:
            texts = self._read_prompts(prompts)
        indices = [pick_frames(video.num_frames, self._num_frames) for video in opened]
        scores: list[list[float]] = [[] for _ in opened]
        frames = self._pixels(opened, indices)
        while batch := list(islice(frames, self._batch_frames)):
            places, pixels = zip(*batch, strict=True)
            with self.feed.turn:
                pixels_B3HW = torch.stack(pixels).to(self.scorer.device)
                texts_B = torch.stack([texts[place] for place in places])
                values = self.scorer.network(pixels_B3HW, texts_B).tolist()
            for place, value in zip(places, values, strict=True):
                scores[place].append(value)
        return [self._as_score(*of_video) for of_video in zip(indices, scores, strict=True)]

    def score_pixels(self, videos_BF3HW: Tensor, fps: float, prompts: Sequence[str]) -> Tensor:
        """Return the scores [B, 1] of pixels in [0, 1]; see `DifferentiableReward`.

        All frames are in memory at once. Of the network's activations those of `batch_frames` are:
        where there are more, each batch is computed again in the backward pass.
        """
        check_pixels(videos_BF3HW, prompts)
        texts = torch.stack(self._read_prompts(prompts))
        indices = pick_frames(videos_BF3HW.shape[1], self._num_frames)
        frames = videos_BF3HW[:, indices].flatten(0, 1).to(self.scorer.device)
        texts = texts.repeat_interleave(len(indices), dim=0)
        size = self._batch_frames
        if len(frames) <= size:
            scores = self._scores(frames, texts)
        else:
            batches = zip(frames.split(size), texts.split(size), strict=True)
            scores = torch.cat(
                [checkpoint(self._scores, *batch, use_reentrant=False) for batch in batches]
            )
        return scores.view(-1, len(indices)).mean(1, keepdim=True)

    def _scores(self, frames_B3HW: Tensor, texts: Tensor) -> Tensor:
        return self.scorer.network(self.scorer.preprocess_floats(frames_B3HW), texts)

    def _read_prompts(self, prompts: Sequence[str]) -> list[Tensor]:
        """Return what the network takes for each prompt; equal prompts are read once."""
        if self.scorer.prompts is None:
            return [torch.empty(0, device=self.scorer.device)] * len(prompts)
        self.scorer.prompts.check(prompts)
        distinct = {text: self.scorer.prompts.read(text) for text in dict.fromkeys(prompts)}
        return [distinct[text] for text in prompts]

    def _pixels(
        self, videos: Sequence[OpenVideo], indices: Sequence[list[int]]
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (index of the video, pixels [3, side, side]); decode a batch at a time."""
        size = self._batch_frames
        parts = [
            (place, wanted[first : first + size])
            for place, wanted in enumerate(indices)
            for first in range(0, len(wanted), size)
        ]
        decoding = [Lock() for _ in videos]

        def prepare(part: tuple[int, list[int]]) -> tuple[int, Tensor]:
            place, wanted = part
            video = videos[place]
            with decoding[place]:  # a decoder reads one part after the other
                frames_FHW3 = video.read(wanted)
            check_aspect(video.name, *frames_FHW3.shape[1:3])
            return place, self.scorer.preprocess(frames_FHW3)

        for place, pixels_F3HW in self.feed.map(prepare, parts):
            for pixels_3HW in pixels_F3HW:
                yield place, pixels_3HW

    def _as_score(self, indices: list[int], frame_scores: list[float]) -> Score:
        mean = sum(frame_scores) / len(frame_scores)
        raw = {"frame_indices": tuple(indices), "frame_scores": tuple(frame_scores)}
        return Score({self.scorer.dimension: mean}, mean, raw)


def check_pixels(videos_BF3HW: Tensor, prompts: Sequence[str]) -> None:
    """Check the arguments of `score_pixels`, for any reward model.

    Raises:
        VideoError: They are not RGB videos of two frames or more, one per prompt.
    """
    shape = list(videos_BF3HW.shape)
    if len(shape) != 5 or shape[0] != len(prompts) or shape[1] < MIN_FRAMES or shape[2] != 3:
        raise VideoError(
            f"expected pixels [{len(prompts)} videos, {MIN_FRAMES} or more frames, 3, H, W], got "
            f"{shape}"
        )
    if min(shape[3:]) < MIN_SIDE_PX:
        raise VideoError(f"frames of {shape[4]}×{shape[3]} pixels hold no picture")
    check_aspect("the batch", shape[3], shape[4])


def pick_frames(num_frames: int, wanted: int | None) -> list[int]:
    """Return the middle frames of `wanted` equal parts of a video; all if there are fewer."""
    count = min(wanted or num_frames, num_frames)
    return [int((place + 0.5) * num_frames / count) for place in range(count)]

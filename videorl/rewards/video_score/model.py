"""VideoScore (TIGER-AI-Lab): five dimensions by regression, in one forward.

He et al., "VideoScore: Building Automatic Metrics to Simulate Fine-grained Human Feedback for
Video Generation", arXiv 2406.15252. Published as `TIGER-Lab/VideoScore` (16 frames) and
`TIGER-Lab/VideoScore-v1.1` (48 frames), both Apache-2.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from videorl.errors import ConfigError
from videorl.rewards.checkpoints import find_folder
from videorl.rewards.feed import Feed
from videorl.rewards.placement import placement
from videorl.rewards.video_score.inputs import ClipInputs, Preprocessor, read_preprocessor
from videorl.rewards.video_score.network import (
    VideoScoreNetwork,
    load_network,
    read_config,
    save_checkpoint,
)
from videorl.rewards.videos import OpenVideo, VideoSource, check_prompts, open_video, open_videos
from videorl.types import Score

DTYPES = ("float32", "bfloat16")
CHECKPOINT_FILES = ("*.json", "*.safetensors")


class VideoScore:
    """Scores videos like the authors' code, from about 1 (bad) to 4 (perfect), not clipped."""

    dimensions: tuple[str, ...] = (
        "visual_quality",
        "temporal_consistency",
        "dynamic_degree",
        "text_to_video_alignment",
        "factual_consistency",
    )

    def __init__(
        self,
        path: str | Path,
        *,
        max_num_frames: int = 16,
        device: str | None = None,
        dtype: str | None = None,
        max_batch_frames: int = 48,
    ) -> None:
        """Load a published checkpoint.

        Args:
            path: Folder or hub id.
            max_num_frames: Number of evenly spread frames to look at: 16 for VideoScore, 48 for
                VideoScore-v1.1. The checkpoint does not say which it is.
            device: Where the model runs; None = the GPU if there is one.
            dtype: `float32` or `bfloat16`; None = float32 on the CPU, bfloat16 on a GPU.
            max_batch_frames: Frames per forward; bounds memory. A longer video gets a forward of
                its own, and its frames are encoded in parts.

        Raises:
            ConfigError: An option has an impossible value.
            CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape.
        """
        for name, value in (
            ("max_num_frames", max_num_frames),
            ("max_batch_frames", max_batch_frames),
        ):
            if value < 1:
                raise ConfigError(f"video_score: {name} must be > 0, got {value}")
        if dtype is not None and dtype not in DTYPES:
            raise ConfigError(
                f"video_score: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}"
            )
        where, kind = placement("video_score", device, dtype)
        self.folder = find_folder(str(path), CHECKPOINT_FILES)
        self.max_batch_frames = max_batch_frames
        self.feed = Feed()
        config = read_config(self.folder)
        self.preprocess: Preprocessor = read_preprocessor(self.folder, config, max_num_frames)
        self.network: VideoScoreNetwork = load_network(self.folder, config, kind).to(where)

    def score(self, videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[Score]:
        """Score each video against its prompt.

        `total` is the mean of the five dimensions. They are the logits themselves, which `raw` has
        too. Values do not depend on the rest of the batch (up to about 1e-6 in float32).

        Raises:
            VideoError: A video cannot be scored; the error names it. See `scoring.score_each`.
            PromptError: A prompt is empty, too long, or contains a special token of the model.
        """
        opened = open_videos(videos, prompts)
        check_prompts(prompts, self.preprocess.reserved)
        scores: list[Score] = []
        for clips in self._batches(opened, prompts):
            with self.feed.turn, torch.inference_mode():
                logits_B5 = self.network(clips, self.max_batch_frames).float().cpu()
            for values in logits_B5.tolist():
                logits = dict(zip(self.dimensions, values, strict=True))
                scores.append(Score(logits, sum(values) / len(values), dict(logits)))
        return scores

    def prepare(self, video: VideoSource, prompt: str) -> ClipInputs:
        """Return the input of `network` for one video.

        Raises:
            VideoError: The video cannot be scored.
            PromptError: The prompt is empty, too long, or contains a special token of the model.
        """
        return self.preprocess(open_video(video), prompt)

    def save(self, folder: str | Path) -> None:
        """Write the current weights in the published layout.

        Raises:
            CheckpointError: The model was loaded from `folder`.
        """
        save_checkpoint(self.network.state_dict(), self.folder, Path(folder))

    def _batches(
        self, videos: Sequence[OpenVideo], prompts: Sequence[str]
    ) -> Iterator[list[ClipInputs]]:
        """Yield the inputs of each forward; pixels are read for no more than `feed` allows."""
        clips: list[ClipInputs] = []
        num_frames = 0
        pairs = zip(videos, prompts, strict=True)
        for clip in self.feed.map(lambda pair: self.preprocess(*pair), pairs):
            if clips and num_frames + len(clip.pixels_FCHW) > self.max_batch_frames:
                yield clips
                clips, num_frames = [], 0
            clips.append(clip)
            num_frames += len(clip.pixels_FCHW)
        if clips:
            yield clips

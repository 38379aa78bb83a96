"""VideoReward (KwaiVGI/VideoAlign): visual quality, motion quality and text alignment.

Liu et al., "Improving Video Generation with Human Feedback", arXiv 2501.13918. Published as
`KwaiVGI/VideoReward` (Apache-2.0) on top of `Qwen/Qwen2-VL-2B-Instruct`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from videorl.errors import CheckpointError, ConfigError, PromptError
from videorl.rewards.checkpoints import find_folder, read_json
from videorl.rewards.feed import Feed
from videorl.rewards.per_frame import check_pixels
from videorl.rewards.placement import placement
from videorl.rewards.video_reward.checkpoint import (
    Settings,
    find_step,
    load_network,
    read_settings,
)
from videorl.rewards.video_reward.network import VideoRewardNetwork
from videorl.rewards.video_reward.prompt import Questionnaire, read_questionnaire
from videorl.rewards.video_reward.qwen_video import Patches
from videorl.rewards.videos import OpenVideo, VideoSource, check_prompts, open_videos
from videorl.types import Score, Video

DTYPES = ("float32", "bfloat16")
MAX_PADDING = 1.1
"""Largest ratio of padded to real tokens in a forward; other lengths get another forward."""
BASE_FILES = ("*.json", "*.txt")
"""What is read of the base model: all weights are in the checkpoint."""


@dataclass(slots=True)
class _Clip:
    """A distinct video of a call, with its prompts."""

    video: OpenVideo
    prompts: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    """Distinct prompt -> indices of its scores."""


@dataclass(frozen=True, slots=True)
class _Row:
    """A clip ready for the network."""

    patches: Patches
    questions: list[list[int]]
    """A conversation as token ids for each distinct prompt."""
    places: list[list[int]]
    """For each question, the indices of its scores."""

    @property
    def num_shared(self) -> int:
        """Number of leading tokens that all questions share; a single question shares all."""
        if len(self.questions) == 1:
            return len(self.questions[0])
        columns = zip(*self.questions, strict=False)
        return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


class VideoReward:
    """Scores videos like VideoAlign's own code: z-scores with respect to the authors' data.

    A video with several prompts is encoded once, together with what its questions share. That
    includes visual and motion quality, which are asked before the prompt is shown.
    """

    dimensions: tuple[str, ...] = ("visual_quality", "motion_quality", "text_alignment")

    def __init__(
        self,
        network: VideoRewardNetwork,
        questionnaire: Questionnaire,
        settings: Settings,
        *,
        max_batch_tokens: int = 16384,
    ) -> None:
        """Combine loaded parts; `load_video_reward` loads them.

        Args:
            network: Must be on its device.
            questionnaire: Tokenizer and chat template.
            settings: Sampling of frames, and normalisation of scores.
            max_batch_tokens: Tokens per forward, padding included; bounds memory. A longer video
                gets a forward of its own. (5 s in 480p are about 2,000 tokens.)

        Raises:
            ConfigError: `max_batch_tokens` is not above 0.
        """
        if max_batch_tokens < 1:
            raise ConfigError(f"video_reward: max_batch_tokens must be > 0, got {max_batch_tokens}")
        self.network = network
        self.questionnaire = questionnaire
        self.settings = settings
        self.max_batch_tokens = max_batch_tokens
        self.feed = Feed()

    def score(self, videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[Score]:
        """Score each video against its prompt.

        `total` is the sum of the three z-scores ("Overall"); `raw` has the three logits. Values do
        not depend on the rest of the batch (up to about 1e-6 in float32).

        Raises:
            VideoError: A video cannot be scored; the error names it. See `scoring.score_each`.
            PromptError: A prompt is empty, too long, or contains a special token of the model.
        """
        opened = open_videos(videos, prompts)
        check_prompts(prompts, self.questionnaire.reserved)
        clips: dict[object, _Clip] = {}
        for index, (video, prompt) in enumerate(zip(opened, prompts, strict=True)):
            clip = clips.setdefault(_identity(videos[index]), _Clip(video))
            clip.prompts.setdefault(prompt, []).append(index)
        scores: dict[int, Score] = {}
        for rows in self._batches(list(clips.values())):
            with self.feed.turn:
                rewards = self._rewards(rows)
            for row, rewards_Q3 in zip(rows, rewards, strict=True):
                for places, logits in zip(row.places, rewards_Q3.tolist(), strict=True):
                    scores |= dict.fromkeys(places, self._as_score(logits))
        return [scores[index] for index in range(len(videos))]

    def score_pixels(self, videos_BF3HW: Tensor, fps: float, prompts: Sequence[str]) -> Tensor:
        """Return the z-scores [B, 3] of pixels in [0, 1]; see `DifferentiableReward`.

        The whole batch is one forward, whatever `max_batch_tokens` is.
        """
        check_pixels(videos_BF3HW, prompts)
        check_prompts(prompts, self.questionnaire.reserved)
        patches = [
            self.settings.read_pixels(frames_F3HW, fps)
            for frames_F3HW in videos_BF3HW.to(self.network.device)
        ]
        questions: list[list[int]] = []
        for prompt, video in zip(prompts, patches, strict=True):
            questions.append(question := self.questionnaire.ask(prompt, video.num_tokens))
            self._check_length(prompt, len(question) - video.num_tokens)
        features_ND = self.network.video_features(patches)
        hidden_BLD = self.network(self.questionnaire.padded(questions), features_ND)
        logits_B3 = torch.stack(
            [self._read(row_LD, ids) for row_LD, ids in zip(hidden_BLD, questions, strict=True)]
        ).float()
        means, stds = self.settings.means, self.settings.stds
        return (logits_B3 - logits_B3.new_tensor(means)) / logits_B3.new_tensor(stds)

    def _batches(self, clips: Sequence[_Clip]) -> Iterator[list[_Row]]:
        """Yield the rows of each forward; pixels are read for no more than `feed` allows."""
        rows: list[_Row] = []
        read = self.feed.map(lambda clip: self.settings.read(clip.video), clips)
        for clip, patches in zip(clips, read, strict=True):
            # Prompts that differ only in Unicode composition have equal tokens: ask once.
            places: dict[tuple[int, ...], list[int]] = {}
            for prompt, indices in clip.prompts.items():
                question = tuple(self.questionnaire.ask(prompt, patches.num_tokens))
                self._check_length(prompt, len(question) - patches.num_tokens)
                places.setdefault(question, []).extend(indices)
            row = _Row(patches, [list(question) for question in places], list(places.values()))
            lengths = [each.num_shared for each in (*rows, row)]
            padded = max(lengths) * len(lengths)
            if rows and padded > min(self.max_batch_tokens, MAX_PADDING * sum(lengths)):
                yield rows
                rows = []
            rows.append(row)
        if rows:
            yield rows

    @torch.inference_mode()
    def _rewards(self, rows: Sequence[_Row]) -> list[Tensor]:
        """Return the logits [questions, 3] of every row, in float32 on the CPU."""
        from transformers import DynamicCache

        heads = [row.questions[0][: row.num_shared] for row in rows]
        is_shared = any(len(row.questions) > 1 for row in rows)
        config: Any = self.network.backbone.config
        cache = DynamicCache(config=config.text_config) if is_shared else None
        features_ND = self.network.video_features([row.patches for row in rows])
        hidden_BLD = self.network(self.questionnaire.padded(heads), features_ND, cache)
        rewards: list[Tensor] = []
        for number, row in enumerate(rows):
            found = self._read(hidden_BLD[number], heads[number])
            if len(row.questions) > 1:
                assert cache is not None
                texts_Q = self._text_rewards(row, cache, number)
                found = torch.cat([found[:2].expand(len(texts_Q), 2), texts_Q[:, None]], dim=1)
            rewards.append(found.view(-1, 3).float().cpu())
        return rewards

    def _text_rewards(self, row: _Row, cache: Any, number: int) -> Tensor:
        """Return the text-alignment logits [questions] of `row`, row `number` of `cache`."""
        tails = [question[row.num_shared :] for question in row.questions]
        longest = row.num_shared + max(map(len, tails))
        at_once = max(1, self.max_batch_tokens // longest)
        found: list[Tensor] = []
        for first in range(0, len(tails), at_once):
            some = tails[first : first + at_once]
            own_cache = _expanded(cache, number, row.num_shared, len(some))
            hidden_BLD = self.network(self.questionnaire.padded(some), None, own_cache)
            found += [self._read(hidden_BLD[b], tail) for b, tail in enumerate(some)]
        return torch.cat(found)

    def _read(self, hidden_LD: Tensor, token_ids: Sequence[int]) -> Tensor:
        """Return the rewards whose tokens occur in `token_ids`, in the order of dimensions."""
        ids = self.questionnaire.reward_ids
        asked = [dimension for dimension, token in enumerate(ids) if token in token_ids]
        positions = [token_ids.index(ids[dimension]) for dimension in asked]
        return self.network.rewards(hidden_LD[positions], asked)

    def _check_length(self, prompt: str, num_tokens: int) -> None:
        # Without the video: as in the authors' code, long videos may exceed the limit.
        config: Any = self.network.backbone.config
        if num_tokens > (limit := config.text_config.max_position_embeddings):
            raise PromptError(
                f"prompt of {len(prompt)} characters is too long: the whole question has "
                f"{num_tokens} tokens besides the video, the model takes {limit}: {prompt[:80]!r}"
            )

    def _as_score(self, logits: Sequence[float]) -> Score:
        raw = dict(zip(self.dimensions, logits, strict=True))
        normal = zip(raw.items(), self.settings.means, self.settings.stds, strict=True)
        dimensions = {name: (value - mean) / std for (name, value), mean, std in normal}
        return Score(dimensions, sum(dimensions.values()), raw)


def load_video_reward(
    path: str,
    *,
    base: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    max_batch_tokens: int = 16384,
) -> VideoReward:
    """Load VideoReward from its published layout.

    Args:
        path: Folder or hub id with `model_config.json` and `checkpoint-N/`; or a `checkpoint-N`.
        base: Folder or hub id of the base model, of which only configuration and chat template
            are read. None = the folder `base` beside `model_config.json`, which models trained with
            this project have, or else the hub id that `model_config.json` names.
        device: Where the model runs; None = the GPU if there is one.
        dtype: `float32` or `bfloat16`; None = float32 on the CPU, as stored on a GPU.
        max_batch_tokens: Tokens per forward; see `VideoReward`.

    Raises:
        CheckpointError: Files or tensors are missing, unexpected, damaged or of a wrong shape.
        ConfigError: An option has an impossible value.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"video_reward: dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    where, kind = placement("video_reward", device, dtype)
    settings_file, checkpoint = find_step(find_folder(str(path)))
    settings = read_settings(settings_file)
    beside = settings_file.parent / "base"
    if base is None and (beside / "config.json").is_file():
        base = str(beside)
    base_folder = find_folder(str(base or settings.base), BASE_FILES)
    questionnaire = read_questionnaire(checkpoint / "tokenizer", base_folder)
    config = _base_config(base_folder)
    config.text_config.vocab_size = questionnaire.tokenizer.get_vocab_size()
    wanted = kind if dtype or where.type == "cpu" else settings.dtype
    network = load_network(checkpoint, settings, config, wanted).to(where)
    return VideoReward(network, questionnaire, settings, max_batch_tokens=max_batch_tokens)


def _base_config(folder: Path) -> Any:
    from transformers import Qwen2VLConfig

    # Not `from_pretrained`: without a config.json it returns that of a model of another size.
    content = read_json(folder / "config.json")
    try:
        return Qwen2VLConfig.from_dict(content)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} has no usable Qwen2-VL config.json: {error}") from error


def _identity(video: VideoSource) -> object:
    """Return a key that is equal for the same file, or for the same frames at the same rate."""
    if isinstance(video, Video):
        return id(video.frames), video.fps
    return os.path.realpath(video)


def _expanded(cache: Any, row: int, length: int, copies: int) -> Any:
    """Return `copies` of one row of a cache, cut to its first `length` keys and values."""
    from transformers import DynamicCache

    own = DynamicCache()
    for number, layer in enumerate(cache.layers):
        keys = layer.keys[row : row + 1, :, :length].expand(copies, -1, -1, -1)
        values = layer.values[row : row + 1, :, :length].expand(copies, -1, -1, -1)
        own.update(keys, values, number)
    return own

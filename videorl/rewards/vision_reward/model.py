"""VisionReward for video (arXiv 2412.21059): CogVLM2-Video answers 29 weighted yes/no questions.

Frames, tokens, questions and scores are those of the authors' `inference-video.py`. That reads and
encodes the video again for every question; here it is done once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from videorl.errors import CheckpointError, ConfigError, PromptError
from videorl.rewards.checkpoints import find_folder, pretrained_tokenizer
from videorl.rewards.clip_normal import MEAN, STD
from videorl.rewards.feed import Feed
from videorl.rewards.placement import placement
from videorl.rewards.videos import (
    OpenVideo,
    VideoSource,
    check_aspect,
    check_prompts,
    open_video,
    open_videos,
)
from videorl.rewards.vision_reward import cogvlm2_video
from videorl.rewards.vision_reward.cogvlm2_video import Prefix
from videorl.rewards.vision_reward.questions import (
    TOTALS,
    Answer,
    Question,
    checklist,
    dimension_scores,
    reweighted,
)
from videorl.types import Score

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

MAX_FRAMES = 24
"""There is a frame per second: nothing after the first 24 seconds is seen."""
SIDE_PX = 224
MAX_POSITIONS = 8192
"""The positions that Llama 3 was trained with. `max_position_embeddings` in `config.json` is
smaller, but the authors' code does not use it and scores longer prompts."""
CHECKPOINT_FILES = ("*.json", "*.safetensors")
SPELLINGS = (("yes", "no"), ("Yes", "No"), ("YES", "NO"))


class VisionReward:
    """Scores videos by the answers of CogVLM2-Video; deterministic."""

    dimensions = tuple(dict.fromkeys(question.dimension for question in checklist()))

    def __init__(
        self,
        path: str | Path,
        *,
        total: str = "R",
        questions: str = "weighted",
        weights: str | Path | None = None,
        device: str | None = None,
        dtype: str | None = None,
    ) -> None:
        """Load a published checkpoint.

        Args:
            path: Folder or hub id with `config.json`, safetensors and the tokenizer.
            total: How `Score.total` is computed, one of `TOTALS`; dimensions are always R.
            questions: Which to ask: `weighted`, or `all` 64 (to fit weights).
            weights: File of weights to use instead of the published ones, see `reweighted`.
            device: Where the model runs; None = the GPU if there is one.
            dtype: Type of weights and arithmetic; None = bfloat16 on a GPU, float32 on the CPU.

        Raises:
            ConfigError: `total`, `questions` or `dtype` is unknown.
            CheckpointError: The folder is not a complete checkpoint of this model, or `weights` is
                not a list of weights.
        """
        if total not in TOTALS:
            near = difflib.get_close_matches(total, TOTALS, n=1, cutoff=0.0)
            raise ConfigError(
                f"total of vision_reward must be one of {', '.join(TOTALS)}, got {total!r}; "
                f"did you mean {near[0]!r}?"
            )
        self._total = TOTALS[total]
        if questions not in ("weighted", "all"):
            raise ConfigError(
                f"questions of vision_reward must be weighted or all, got {questions!r}"
            )
        known = checklist() if weights is None else reweighted(Path(weights))
        self.asked = tuple(q for q in known if q.weight > 0 or questions == "all")
        where, kind = placement("vision_reward", device, dtype)
        folder = find_folder(str(path), CHECKPOINT_FILES)
        self._tokenizer = _load_tokenizer(folder)
        (self._bos,) = self._encode(str(self._tokenizer.bos_token))
        self._pairs = _answer_tokens(self._tokenizer, folder)
        self.network = cogvlm2_video.load(folder, device=where, dtype=kind)
        self._device = where
        self.feed = Feed()

    def score(self, videos: Sequence[VideoSource], prompts: Sequence[str]) -> list[Score]:
        """Score each video against its prompt.

        Returns:
            Per video: `dimensions` has the R of each of the nine, `total` is what the option says,
            `raw` has `answers` ("yes" or "no"), `yes_logits` and `no_logits` in the order of
            `asked`. If a logit is not finite, every value is NaN.

        Raises:
            VideoError: A video cannot be scored, or the numbers of videos and prompts differ.
            PromptError: A prompt is empty, too long, or contains a special token.
        """
        opened = open_videos(videos, prompts)
        self._check_prompts(prompts)
        scores: list[Score] = []
        pixels = self.feed.map(read_frames, opened)
        for pixels_FCHW, prompt in zip(pixels, prompts, strict=True):
            with self.feed.turn:
                answers = self.answer(self._prefix(pixels_FCHW), prompt, self.asked)
            scores.append(self._as_score(answers))
        return scores

    def ask(
        self, video: VideoSource, prompt: str, questions: Sequence[Question] | None = None
    ) -> list[Answer]:
        """Return the answers to `questions`, by default to all 64, about one video.

        Raises:
            VideoError: The video cannot be scored.
            PromptError: The prompt is empty, too long, or contains a special token.
        """
        return self.answer(self.read(open_video(video)), prompt, questions or checklist())

    def read(self, video: OpenVideo) -> Prefix:
        """Return what precedes every question: the frames, each with its second.

        Raises:
            VideoError: The frames cannot be decoded, or are too long and narrow.
        """
        return self._prefix(read_frames(video))

    @torch.inference_mode()
    def _prefix(self, pixels_FCHW: Tensor) -> Prefix:
        labels = [self._encode(str(second)) for second in range(len(pixels_FCHW))]
        frames_FLD = self.network.encode_frames(pixels_FCHW.to(self._device))
        return self.network.prefix(frames_FLD, self._bos, labels)

    @torch.inference_mode()
    def answer(self, prefix: Prefix, prompt: str, questions: Sequence[Question]) -> list[Answer]:
        """Return the answers to `questions` about a video that was `read`, in one pass.

        Raises:
            PromptError: The prompt is empty, too long, or contains a special token.
        """
        self._check_prompts([prompt])
        suffixes = [
            self._encode(f"Question: {question.about(prompt)} Answer:") for question in questions
        ]
        needed = prefix.next_position + max(map(len, suffixes))
        if needed > MAX_POSITIONS:
            raise PromptError(
                f"prompt of {len(prompt)} characters is too long: with it a question ends at "
                f"position {needed}, the model has {MAX_POSITIONS}: {prompt[:80]!r}"
            )
        logits = self.network.answer_logits(prefix, suffixes).cpu()
        words = self._tokenizer.batch_decode(logits.argmax(dim=1)[:, None])
        return [
            read_answer(row, word, self._pairs) for row, word in zip(logits, words, strict=True)
        ]

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        added = self._tokenizer.added_tokens_decoder.values()
        check_prompts(prompts, [token.content for token in added])

    def _encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _as_score(self, answers: list[Answer]) -> Score:
        raw = {
            "answers": tuple("yes" if answer.is_yes else "no" for answer in answers),
            "yes_logits": tuple(answer.yes_logit for answer in answers),
            "no_logits": tuple(answer.no_logit for answer in answers),
        }
        if not all(map(math.isfinite, (*raw["yes_logits"], *raw["no_logits"]))):
            return Score(dict.fromkeys(self.dimensions, math.nan), math.nan, raw)
        weighted = [(q, a) for q, a in zip(self.asked, answers, strict=True) if q.weight > 0]
        questions, counted = zip(*weighted, strict=True)
        total = self._total([question.weight for question in questions], counted)
        return Score(dimension_scores(questions, counted), total, raw)


def read_answer(logits_V: Tensor, word: str, pairs: Sequence[tuple[int, int]]) -> Answer:
    """Return the answer that the first generated token gives.

    Args:
        logits_V: Logits of that token.
        word: The most likely token as text. The authors compare it with "yes". Here case does not
            matter, and where the token is neither yes nor no, the larger of their logits decides.
        pairs: Tokens of (yes, no) per spelling. The logits are those of the spelling that the model
            prefers, so that both are spelled alike.
    """
    yes, no = max(pairs, key=lambda pair: float(logits_V[list(pair)].max()))
    yes_logit, no_logit = float(logits_V[yes]), float(logits_V[no])
    is_yes = {"yes": True, "no": False}.get(word.strip().lower(), yes_logit > no_logit)
    return Answer(is_yes, yes_logit, no_logit)


def pick_frames(timestamps_F: npt.NDArray[np.float32]) -> list[int]:
    """Return the frame nearest to each full second, the earlier of two equally near.

    Args:
        timestamps_F: Seconds at which the frames are shown.
    """
    num_seconds = round(float(timestamps_F.max())) + 1
    return [
        int(np.abs(timestamps_F - np.float32(second)).argmin())
        for second in range(min(num_seconds, MAX_FRAMES))
    ]


def read_frames(video: OpenVideo) -> Tensor:
    """Return the frames that are looked at, as `preprocess` does.

    Raises:
        VideoError: The frames cannot be decoded, or are too long and narrow.
    """
    frames_FHW3 = video.read(pick_frames(video.timestamps()))
    check_aspect(video.name, *frames_FHW3.shape[1:3])
    return preprocess(frames_FHW3)


def preprocess(frames_FHW3: npt.NDArray[np.uint8]) -> Tensor:
    """Return pixels [F, 3, 224, 224]: normalised, then resized by the short side, then cropped.

    The order, and bilinear resizing without antialiasing, are those of the authors.
    """
    pixels_CFHW = torch.from_numpy(frames_FHW3).permute(3, 0, 1, 2) / 255.0
    mean_C111, std_C111 = (torch.tensor(values)[:, None, None, None] for values in (MEAN, STD))
    pixels_CFHW.sub_(mean_C111).div_(std_C111)
    height, width = pixels_CFHW.shape[2:]
    if width < height:
        size = (math.floor(height / width * SIDE_PX), SIDE_PX)
    else:
        size = (SIDE_PX, math.floor(width / height * SIDE_PX))
    pixels_CFHW = F.interpolate(pixels_CFHW, size=size, mode="bilinear", align_corners=False)
    top, left = (round((side - SIDE_PX) / 2) for side in size)
    crop_CFHW = pixels_CFHW[:, :, top : top + SIDE_PX, left : left + SIDE_PX]
    return crop_CFHW.transpose(0, 1).contiguous()


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    # Not AutoTokenizer: it asks for the remote code that the published config.json names.
    for name in ("tokenizer.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing from the checkpoint")
    return pretrained_tokenizer(PreTrainedTokenizerFast, folder, ("tokenizer.json",))


def _answer_tokens(tokenizer: PreTrainedTokenizerFast, folder: Path) -> list[tuple[int, int]]:
    """Return (yes, no) token ids for each spelling in which both are single tokens."""
    pairs: list[tuple[int, int]] = []
    for yes, no in SPELLINGS:
        for space in ("", " "):
            ids = [tokenizer.encode(space + word, add_special_tokens=False) for word in (yes, no)]
            if len(ids[0]) == len(ids[1]) == 1:
                pairs.append((ids[0][0], ids[1][0]))
    if not pairs:
        raise CheckpointError(f"{folder}: its tokenizer has no single token for yes and no")
    return pairs

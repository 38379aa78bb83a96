"""A reward model that scores uploaded videos."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from videorl.errors import VideoError
from videorl.protocols import RewardModel
from videorl.rewards.scoring import explained_scores
from videorl.serving.errors import Failure
from videorl.serving.uploads import UploadDecoder
from videorl.types import Score, Video

_THREADS = 4
"""Uploads that are decoded at once; each is in a process of its own."""
_OF_THE_MODEL = {
    "score_not_finite": "the model gave this video a score that is no number (NaN or infinity)",
    "score_missing_dimension": "the model left out one of its dimensions",
    "score_unknown_dimension": "the model gave a dimension that is none of its own",
}


class UploadScorer:
    """Decodes what was uploaded in processes without rights, then scores all of it together."""

    def __init__(self, model: RewardModel, decoder: UploadDecoder) -> None:
        self._model, self._decoder = model, decoder
        self._threads = ThreadPoolExecutor(_THREADS, "decode uploads")

    def decoded(self, contents: Sequence[bytes]) -> list[Video | Failure]:
        """Return the frames of each upload, or why it has none."""
        return [*self._threads.map(self._decoded, contents)]

    def score(
        self, videos: Sequence[Video | Failure], prompts: Sequence[str]
    ) -> list[Score | Failure]:
        """Return the score of each video with its prompt, or why it has none."""
        good = [index for index, video in enumerate(videos) if isinstance(video, Video)]
        results: list[Score | Failure] = [
            video if isinstance(video, Failure) else Failure("", "") for video in videos
        ]
        if good:  # models take no empty batch
            asked = [prompts[index] for index in good]
            scores = explained_scores(self._model, [videos[index] for index in good], asked)
            for index, score in zip(good, scores, strict=True):
                results[index] = _failure(score) if isinstance(score, str) else score
        return results

    def _decoded(self, content: bytes) -> Video | Failure:
        try:
            return self._decoder.decode(content)
        except VideoError as error:
            return Failure(str(error), "video_unreadable")


def _failure(reason: str) -> Failure:
    """Return what is told of a video without a score: the model's own words, or a fault of its."""
    if reason in _OF_THE_MODEL:
        return Failure(_OF_THE_MODEL[reason], "unscorable", 500)
    return Failure(reason, "unscorable")

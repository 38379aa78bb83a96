"""A reward that is easily hacked: temporal consistency alone, which a still or black video has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from videorl.types import Score, Video


class TemporalConsistency:
    """Scores how little neighbouring frames differ, as negative mean difference of pixels."""

    dimensions = ("temporal_consistency",)

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Return one score per video, at most 0; 0 is a still."""
        found = [-float(np.abs(np.diff(video.frames / 255.0, axis=0)).mean()) for video in videos]
        return [Score({"temporal_consistency": 100 * value}, 100 * value) for value in found]

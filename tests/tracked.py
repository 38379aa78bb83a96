"""What tests tell to trackers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from videorl.data.video_io import write_mp4
from videorl.trackers.tracker import FixedVideo, TrackedRun
from videorl.types import Video


def tracked(root: Path) -> TrackedRun:
    return TrackedRun(root, "an-id", "a run", "project")


def fixed_videos(root: Path, step: int = 1) -> list[FixedVideo]:
    """Return two videos, of which the second is wider, and one that was lost."""
    videos = []
    for place, width in enumerate((32, 64)):
        frames_FHW3 = np.zeros((4, 32, width, 3), np.uint8)
        for index in range(4):
            frames_FHW3[index, :, index * 8 : index * 8 + 8] = 255
        path = root / f"fixed_prompts/step-{step:06d}/{place:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(path, Video(frames_FHW3, 8.0))
        scores = {"motion": float(place), "total": place / 2}
        videos.append(FixedVideo(f"prompt {place}", 7 + place, path, scores))
    return [*videos, FixedVideo("lost", 9, None, {})]

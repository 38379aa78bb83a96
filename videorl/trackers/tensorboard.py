"""TensorBoard event files, written without torch or TensorFlow."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from videorl.trackers.tracker import FixedVideo, means, number

_LONGEST_SIDE_PX = 320
"""Of the moving pictures, which have no compression to speak of."""


class TensorBoardTracker:
    """Scalars, and the videos of the fixed prompts as GIF under *Images*.

    Args:
        directory: Of the event files.
    """

    def __init__(self, directory: Path) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        is_first = not list(directory.glob("events.out.tfevents.*"))
        self._writer = EventFileWriter(str(directory))
        if is_first:
            # TensorBoard takes the first session mark for the beginning, later ones for restarts.
            self.truncate(0)

    def config(self, settings: Mapping[str, Any]) -> None:
        """Do nothing: the recipe is in the run folder, beside the event files."""

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step; it is on disk when this returns."""
        values = [{"tag": name, "simple_value": value} for name, value in metrics.items()]
        self._add(step, summary={"value": values})

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Record the videos of a step, each under its place, and the means of their scores."""
        values: list[dict[str, Any]] = [
            {"tag": name, "simple_value": value} for name, value in means(videos).items()
        ]
        for place, video in enumerate(videos):
            if video.path is None:
                continue
            content, width, height = gif(video.path)
            image = {"height": height, "width": width, "colorspace": 3}
            described = {"summary_description": f"{video.prompt} (seed {video.seed})"}
            values.append(
                {
                    "tag": number(place),
                    "image": {**image, "encoded_image_string": content},
                    "metadata": described,
                }
            )
        self._add(step, summary={"value": values})

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Do nothing: the summary is in the run folder."""

    def truncate(self, step: int) -> None:
        """Tell TensorBoard to hide what earlier event files hold of steps >= `step`."""
        self._add(step, session_log={"status": "START"})

    def close(self) -> None:
        """Stop the writer's thread."""
        self._writer.close()

    def _add(self, step: int, **content: Any) -> None:
        from tensorboard.compat.proto import event_pb2

        event = event_pb2.Event(  # pyright: ignore[reportAttributeAccessIssue]
            step=step, wall_time=time.time(), **content
        )
        self._writer.add_event(event)
        self._writer.flush()


def gif(path: Path) -> tuple[bytes, int, int]:
    """Return a video file as a GIF that repeats, with its width and height in pixels.

    It is made smaller where a side is longer than 320 pixels.

    Raises:
        VideoError: The file cannot be read.
    """
    from PIL import Image

    from videorl.data.video_io import read_video

    video = read_video(path)
    height, width = video.frames.shape[1:3]
    scale = min(1.0, _LONGEST_SIDE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    first, *others = (Image.fromarray(frame_HW3).resize(size) for frame_HW3 in video.frames)
    content = io.BytesIO()
    first.save(
        content,
        format="GIF",
        save_all=True,
        append_images=others,
        duration=round(1000 / video.fps),
        loop=0,
    )
    return content.getvalue(), *size

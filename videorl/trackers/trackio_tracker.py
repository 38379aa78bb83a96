"""Trackio as a tracker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from videorl.trackers.tracker import FixedVideo, TrackedRun, means, number, package


def check() -> None:
    """Import trackio.

    Raises:
        ConfigError: It is not installed, or cannot be imported.
    """
    package("trackio", "trackio", needs="init")


class TrackioTracker:
    """Trackio (`pip install 'videorl[trackio]'`): a local dashboard, or a Hugging Face Space.

    Trackio's own variables say where: `TRACKIO_DIR`, `TRACKIO_SPACE_ID`, `TRACKIO_SERVER_URL`. It
    goes on with a run by its name, so the run is named by its id there.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._trackio = package("trackio", "trackio", needs="init")
        self._tracked, self._step = run, 0
        self._run: Any = None

    def config(self, settings: Mapping[str, Any]) -> None:
        """Take the recipe, and begin: Trackio takes it only then."""
        self._run = self._trackio.init(
            project=self._tracked.project,
            name=self._tracked.id,
            config={**settings, "run_name": self._tracked.name},
            resume="allow",
            embed=False,
            auto_log_gpu=False,  # those of the driver's node say nothing of a cluster
            auto_log_cpu=False,
        )

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        self._step = step
        self._run.log(dict(metrics), step=step)

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Record the videos of a step."""
        row: dict[str, Any] = dict(means(videos))
        for place, video in enumerate(videos):
            if video.path is not None:
                row[number(place)] = self._trackio.Video(str(video.path), caption=video.caption)
        self._run.log(row, step=step)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take the results, as numbers of the last step: Trackio has no summary of its own."""
        row = {f"summary/{name}": value for name, value in facts.items()}
        self._run.log(row, step=self._step)

    def truncate(self, step: int) -> None:
        """Do nothing: Trackio cannot forget."""

    def close(self) -> None:
        """Hand over what is left."""
        self._run.finish()

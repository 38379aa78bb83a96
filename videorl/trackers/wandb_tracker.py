"""Weights & Biases as a tracker."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from videorl.trackers.tracker import FixedVideo, TrackedRun, means, number, package

_INIT_TIMEOUT_S = 20
_STEP = "step"
"""The x axis of all charts."""
_logger = logging.getLogger(__name__)


def check() -> None:
    """Import wandb.

    Raises:
        ConfigError: It is not installed, or cannot be imported.
    """
    package("wandb", "wandb", needs="init")


class WandbTracker:
    """Weights & Biases (`pip install 'videorl[wandb]'`); a resumed run goes on under its id.

    Where the service cannot be reached, or nobody is logged in, all is recorded in the folder for
    `wandb sync`.

    Raises:
        wandb.errors.Error: It cannot be recorded either.
    """

    def __init__(self, run: TrackedRun) -> None:
        self._wandb = package("wandb", "wandb", needs="init")
        # By itself it also sends the command line, the source and what is printed.
        quiet: dict[str, Any] = {
            "x_disable_meta": True,
            "disable_code": True,
            "disable_git": True,
            "console": "off",
            "init_timeout": _INIT_TIMEOUT_S,
            "reinit": "create_new",  # another run of this process may not have ended yet
        }
        arguments = {
            "project": run.project,
            "name": run.name,
            "id": run.id,
            "resume": "allow",
            "dir": str(run.root),
        }
        try:
            self._run = self._started(arguments, quiet)
        except (self._wandb.errors.Error, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            _logger.warning(
                "Weights & Biases cannot be used (%s): all is recorded in %s/wandb, `wandb sync` "
                "uploads it",
                reason,
                run.root,
            )
            self._run = self._started(arguments, {**quiet, "mode": "offline"})
        # Videos come later than the metrics of their step, and W&B's own step cannot go back. So
        # every entry is a row, and all is drawn over a number of ours.
        self._run.define_metric(_STEP)
        self._run.define_metric("*", step_metric=_STEP)

    def config(self, settings: Mapping[str, Any]) -> None:
        """Take the recipe."""
        self._run.config.update(dict(settings), allow_val_change=True)

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step."""
        self._run.log({_STEP: step, **metrics})

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Record the videos of a step."""
        row: dict[str, Any] = {_STEP: step, **means(videos)}
        for place, video in enumerate(videos):
            if video.path is not None:
                row[number(place)] = self._wandb.Video(str(video.path), caption=video.caption)
        self._run.log(row)

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take the results."""
        self._run.summary.update(dict(facts))

    def truncate(self, step: int) -> None:
        """Do nothing: W&B cannot forget."""

    def close(self) -> None:
        """Upload what is left."""
        self._run.finish()

    def _started(self, arguments: dict[str, Any], settings: dict[str, Any]) -> Any:
        try:
            if settings.get("mode") != "offline":
                self._check_login()
            return self._wandb.init(**arguments, settings=self._wandb.Settings(**settings))
        except BaseException:
            self._wandb.teardown()  # or its service goes on trying, and keeps the id
            raise

    def _check_login(self) -> None:
        """Refuse what would ask for a key on the terminal of the run, and wait for the answer."""
        mode = self._wandb.setup().settings.mode
        is_asked = mode in ("online", "shared") and self._wandb.run is None
        if is_asked and not self._wandb.login(prompt=False):
            raise self._wandb.errors.UsageError(
                "No API key configured: log in with `wandb login`, or set WANDB_API_KEY"
            )

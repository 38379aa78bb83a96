"""The trackers of a run, by the names that a recipe gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from videorl.settings.tracking import MetricsConfig
from videorl.trackers import mlflow_tracker, trackio_tracker, wandb_tracker
from videorl.trackers.behind import Behind
from videorl.trackers.mlflow_tracker import MlflowTracker
from videorl.trackers.tensorboard import TensorBoardTracker
from videorl.trackers.tracker import TrackedRun, Tracker
from videorl.trackers.trackio_tracker import TrackioTracker
from videorl.trackers.wandb_tracker import WandbTracker

_Open = Callable[[TrackedRun], Tracker]
OPTIONAL: dict[str, tuple[Callable[[], None], _Open]] = {
    "wandb": (wandb_tracker.check, WandbTracker),
    "trackio": (trackio_tracker.check, TrackioTracker),
    "mlflow": (mlflow_tracker.check, MlflowTracker),
}
"""Name -> what checks the package, and the tracker; as `videorl.settings.tracking.TRACKERS`."""


def open_trackers(
    config: MetricsConfig, run: TrackedRun, settings: Mapping[str, Any]
) -> list[Behind]:
    """Return TensorBoard and the trackers that a recipe names; each works behind the run.

    Args:
        config: Names them.
        run: What they are told of the run; its project, the name of the recipe, is used where the
            recipe states none.
        settings: The recipe by dotted key, without secrets.

    Raises:
        ConfigError: The package of a tracker is not installed, or cannot be imported.
    """
    chosen = config.chosen()
    for name in chosen:
        check, _ = OPTIONAL[name]
        check()
    directory = run.root / "tensorboard"
    opened = [Behind("tensorboard", partial(TensorBoardTracker, directory), settings)]
    for name in chosen:
        tracked = replace(run, project=config.project_of(name, run.project))
        sent = run.root / "trackers" / f"{name}.json"
        opened.append(Behind(name, partial(OPTIONAL[name][1], tracked), settings, sent))
    return opened

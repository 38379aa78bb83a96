"""What a tracker takes: the interface that all of them share."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from videorl.errors import ConfigError

SECTION = "fixed_prompts"
"""Prefix of what trackers show of the fixed prompts."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What trackers know of a run before its first step."""

    root: Path
    """The run folder."""
    id: str
    """Unique, and kept when the run goes on; see `videorl.run.run_id`."""
    name: str
    """For people; other runs may have the same."""
    project: str
    """What the run is listed under."""


@dataclass(frozen=True, slots=True)
class FixedVideo:
    """The video of a fixed prompt at one step."""

    prompt: str
    seed: int
    path: Path | None
    """An mp4 file that stays; None = it was lost."""
    scores: Mapping[str, float]
    """Dimension -> value, `total` too; empty if it was lost."""

    @property
    def caption(self) -> str:
        """Return the prompt with its seed and total."""
        total = f", total {self.scores['total']:+.3f}" if "total" in self.scores else ""
        return f"{self.prompt} (seed {self.seed}{total})"


class Tracker(Protocol):
    """Takes what a run tells of itself, step by step; may raise or block.

    All calls come from one thread.
    """

    def config(self, settings: Mapping[str, Any]) -> None:
        """Take the recipe, by dotted key; called first, and again when the run goes on."""
        ...

    def metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the numbers of one step (>= 0)."""
        ...

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Take the videos of the fixed prompts, sampled with the weights of `step`."""
        ...

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Take the results of a run that has reached its end, by dotted key."""
        ...

    def truncate(self, step: int) -> None:
        """Forget steps >= `step`, if the tracker can: the run goes on from there."""
        ...

    def close(self) -> None:
        """Hand over what is left; nothing comes afterwards."""
        ...


def number(place: int) -> str:
    """Return the name of a fixed prompt, by its place among them."""
    return f"{SECTION}/{place:03d}"


def means(videos: Sequence[FixedVideo]) -> dict[str, float]:
    """Return the mean over the videos of each dimension that all scored videos have."""
    scored = [video.scores for video in videos if video.scores]
    shared = [name for name in scored[0] if all(name in each for each in scored)] if scored else []
    return {
        f"{SECTION}/{name}": math.fsum(each[name] for each in scored) / len(scored)
        for name in shared
    }


def package(name: str, extra: str, *, needs: str) -> Any:
    """Import the package of a tracker.

    Args:
        name: Of the package.
        extra: Of `videorl`, that installs it.
        needs: A function that the package has: a folder of the same name has none.

    Raises:
        ConfigError: It is not installed, cannot be imported, or is hidden by a folder.
    """
    install = f"run `pip install 'videorl[{extra}]'`"
    leave = f"leave {extra} out of metrics.trackers"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"{name} cannot be imported: it needs {error.name}") from error
        raise ConfigError(f"{name} is not installed; {install} or {leave}") from error
    except Exception as error:  # what a broken package raises can be anything
        raise ConfigError(f"{name} is installed, but cannot be imported: {error}") from error
    if not hasattr(module, needs):
        place = next(iter(getattr(module, "__path__", [module])))
        raise ConfigError(
            f"a folder named {name} ({place}) hides the package, or it is not installed: start in "
            f"another folder, or {install}"
        )
    return module

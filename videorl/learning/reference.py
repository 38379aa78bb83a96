"""The curriculum reference of OnlineVPO (arXiv 2412.15159, section 3.3).

Every `interval` optimizer steps the reference becomes the policy, so that the policy may move on
without drifting far from what it is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from videorl.errors import ConfigError
from videorl.types import WeightVersion

if TYPE_CHECKING:
    from videorl.protocols import Learner  # imports torch, which the curriculum's actor can spare


class CurriculumReference:
    """Which published version is the reference, and when that changes.

    Args:
        interval: Optimizer steps between swaps; 0 = the first reference stays.
        initial: The version that training starts from.
    """

    def __init__(self, interval: int, initial: WeightVersion) -> None:
        if interval < 0:
            raise ConfigError(f"reference.interval must be >= 0 (0 = never), got {interval}")
        self._interval = interval
        self._history = [initial]

    def current(self) -> WeightVersion:
        """Return the version that is the reference now."""
        return self._history[-1]

    def history(self) -> tuple[WeightVersion, ...]:
        """Return every version that was the reference, oldest first; `.step` says since when."""
        return tuple(self._history)

    def is_due(self, version: WeightVersion) -> bool:
        """Tell whether the policy at `version` should become the reference.

        False for the version that already is: asking again after a swap changes nothing.
        """
        steps = self._interval
        return steps > 0 and version.step % steps == 0 and version.step > self.current().step

    def record(self, version: WeightVersion) -> dict[str, Any]:
        """Remember that `version` became the reference; return the state after it.

        Recording it again changes nothing.
        """
        if version != self.current():
            self._history.append(version)
        return self.state()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep, as plain JSON values."""
        return {"history": [[version.step, version.digest] for version in self._history]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state()` gave."""
        self._history = [WeightVersion(step, digest) for step, digest in state["history"]]


class LocalReferenceUpdater:
    """Applies a `CurriculumReference` to a learner in this process."""

    def __init__(self, learner: Learner, curriculum: CurriculumReference) -> None:
        """Swap the reference of `learner` as `curriculum` says."""
        self._learner = learner
        self._curriculum = curriculum

    def after_step(self, version: WeightVersion) -> WeightVersion:
        """Swap if due; return the version of the current reference."""
        if self._curriculum.is_due(version):
            self._learner.update_reference(version)
            self._curriculum.record(version)
        return self._curriculum.current()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep, as plain JSON values."""
        return self._curriculum.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state()` gave."""
        self._curriculum.restore(state)

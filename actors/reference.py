"""The reference updater: decides when the reference becomes the policy, and knows its version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError

from actors.naming import named
from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import first_line
from videorl.learning.reference import CurriculumReference
from videorl.protocols import Learner
from videorl.types import WeightVersion

logger = logging.getLogger(__name__)

_PATIENCE_S = 300.0
"""It does next to nothing: one that has not answered for so long hangs."""


class RayReferenceUpdater:
    """Implements `videorl.protocols.ReferenceUpdater` on a `CurriculumReference` actor.

    A swap is recorded only after every learner rank has made it. A swap that was made but not
    recorded is made again, which changes nothing.

    Args:
        learner: Holds the reference's weights.
        interval: Optimizer steps between swaps; 0 = never.
        initial: The version that the run started from.
        run: Name of the run, for `actors.naming.named`.
    """

    def __init__(
        self, learner: Learner, interval: int, initial: WeightVersion, run: str = ""
    ) -> None:
        self._learner = learner
        self._start = partial(_start, run, interval, initial)
        self._actor: Any = self._start()
        self._state: Mapping[str, Any] | None = None
        """The newest state known here, restored if the actor dies; None = the initial state."""

    def after_step(self, version: WeightVersion) -> WeightVersion:
        """Swap if due; return the version of the current reference."""
        if self._ask("is_due", version):
            self._learner.update_reference(version)
            self._state = self._ask("record", version)
        return self._ask("current")

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep, as plain JSON values."""
        return self._ask("state")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state()` gave."""
        self._state = state
        self._ask("restore", state)

    def close(self) -> None:
        """Stop the actor."""
        ray.kill(self._actor)

    def _ask(self, question: str, *details: Any) -> Any:
        """Call the actor; where it has died or hangs, start and call another with its state."""
        try:
            return ray.get(getattr(self._actor, question).remote(*details), timeout=_PATIENCE_S)
        except (ActorDiedError, GetTimeoutError) as error:
            logger.warning("the reference updater is started anew: %s", first_line(error))
        self._actor = self._start()
        if self._state is not None:
            ray.get(self._actor.restore.remote(self._state))
        return ray.get(getattr(self._actor, question).remote(*details))


def _start(run: str, interval: int, initial: WeightVersion) -> Any:
    """Start the actor, each time under a name of its own: the last may not be gone yet."""
    options = named(beside_driver(), run, "reference")
    return start_actor(CurriculumReference, options, interval, initial)

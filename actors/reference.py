"""The reference updater: when the reference becomes the policy, and which version it is."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from typing import Any

import ray
from ray.exceptions import ActorDiedError

from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import first_line
from videorl.learning.reference import CurriculumReference
from videorl.protocols import Learner
from videorl.types import WeightVersion

logger = logging.getLogger(__name__)


class RayReferenceUpdater:
    """Implements `videorl.protocols.ReferenceUpdater` on a `CurriculumReference` actor.

    The swap is recorded only after every learner rank has made it; a swap that was made but not
    recorded is made again, which changes nothing.

    Args:
        learner: Holds the reference.
        interval: Optimizer steps between swaps; 0 = never.
        initial: The version that the run started from.
        name: Of the actor in Ray's dashboard and state API; None = anonymous.
    """

    def __init__(
        self, learner: Learner, interval: int, initial: WeightVersion, name: str | None = None
    ) -> None:
        self._learner = learner
        options = {"name": name, **beside_driver()}
        self._start = partial(start_actor, CurriculumReference, options, interval, initial)
        self._actor: Any = self._start()
        self._state: Mapping[str, Any] | None = None
        """The newest that is known here, for an actor that dies; None = the initial one."""

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
        """Call the actor; one that died is followed by another with the state known here."""
        try:
            return ray.get(getattr(self._actor, question).remote(*details))
        except ActorDiedError as error:
            logger.warning("the reference updater is started anew: %s", first_line(error))
        self._actor = self._start()
        if self._state is not None:
            ray.get(self._actor.restore.remote(self._state))
        return ray.get(getattr(self._actor, question).remote(*details))

"""Published weights, kept where any generator can pull them by version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import cause_of
from videorl.errors import CheckpointError
from videorl.types import WeightVersion

if TYPE_CHECKING:
    from torch import Tensor


class WeightStore:
    """Keeps the newest published versions; imports no torch and uses no CPU of its own.

    Generators pull, nobody pushes: one that starts late, or again, asks for what it needs, and no
    broadcast can hang on one that died.

    Args:
        keep: Versions kept (>= 1): those that generators may still be asked for, which is
            `rollouts.max_staleness` and one more.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._packed: dict[WeightVersion, ObjectRef] = {}

    def put(self, version: WeightVersion, packed: npt.NDArray[np.uint8]) -> None:
        """Keep a version, unless there is one of the same step, or newer ones fill the store.

        A learner that restarts publishes old versions again, while generators may still be asked
        for the newest. The buffer is put anew, so that this actor owns the object: its publisher
        may die.
        """
        if any(kept.step == version.step for kept in self._packed):
            return
        self._packed[version] = ray.put(packed)
        for old in sorted(self._packed, key=lambda one: one.step)[: -self._keep]:
            del self._packed[old]

    def get(self, version: WeightVersion) -> list[ObjectRef]:
        """Return the packed weights of a version, as a reference in a list of one.

        Raises:
            CheckpointError: The version is not kept.
        """
        if version not in self._packed:
            kept = ", ".join(f"{one.step} ({one.digest[:12]})" for one in self._packed) or "none"
            raise CheckpointError(
                f"weights of step {version.step} ({version.digest[:12]}) are not in the weight "
                f"store, which keeps {self._keep} versions; it holds: {kept}"
            )
        return [self._packed[version]]


def create_weight_store(keep: int) -> ActorHandle:
    """Start the store beside the driver.

    One that dies is restarted empty, and fills again with the next version. Whoever must pull an
    older one gets an error that ends the run; started again, it publishes all of them.
    """
    options = {**beside_driver(), "max_restarts": -1, "max_task_retries": -1}
    return start_actor(WeightStore, options, keep)


def publish(store: ActorHandle, version: WeightVersion, weights: Mapping[str, Tensor]) -> int:
    """Put weights into the store, wait until they are there, and return their size in bytes."""
    from videorl.weights import pack

    packed = pack(weights)
    ray.get(store.put.remote(version, packed))
    return packed.nbytes


def pull(store: ActorHandle, version: WeightVersion) -> dict[str, Tensor]:
    """Fetch published weights into this process.

    Raises:
        CheckpointError: The version is not in the store.
    """
    from videorl.weights import unpack

    try:
        (ref,) = ray.get(store.get.remote(version))
    except RayTaskError as error:
        raise cause_of(error) from None
    return unpack(ray.get(ref))

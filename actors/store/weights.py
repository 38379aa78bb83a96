"""The weight store: published weights, which any generator can pull by version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import ray
from ray import ObjectRef
from ray.actor import ActorHandle

from actors.naming import named, shown_by_name
from actors.placement import beside_driver, start_actor
from actors.pool.outcomes import answer
from videorl.errors import CheckpointError
from videorl.types import WeightVersion

if TYPE_CHECKING:
    from torch import Tensor


@shown_by_name
class WeightStore:
    """Keeps the newest published versions; imports no torch and uses no CPU of its own.

    Generators pull, nobody pushes: a generator that starts late, or again, asks for what it needs,
    and there is no broadcast to hang when one dies.

    Args:
        keep: Number of versions kept (>= 1): those that generators may be asked for,
            `Recipe.versions_sampled`.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._packed: dict[WeightVersion, ObjectRef] = {}

    def put(self, version: WeightVersion, packed: npt.NDArray[np.uint8]) -> None:
        """Keep a version, unless its step is there already or `keep` newer versions are.

        A learner that restarts publishes old versions again, while generators may still be asked
        for the newest. This actor puts the buffer once more to own the object, because its
        publisher may die.
        """
        if any(kept.step == version.step for kept in self._packed):
            return
        self._packed[version] = ray.put(packed)
        for old in sorted(self._packed, key=lambda kept: kept.step)[: -self._keep]:
            del self._packed[old]

    def get(self, version: WeightVersion) -> list[ObjectRef]:
        """Return a list with the reference to a version's packed weights.

        Raises:
            CheckpointError: The version is not kept.
        """
        if version not in self._packed:
            kept = ", ".join(f"{has.step} ({has.digest[:12]})" for has in self._packed) or "none"
            raise CheckpointError(
                f"weights of step {version.step} ({version.digest[:12]}) are not in the weight "
                f"store, which keeps {self._keep} versions; it holds: {kept}"
            )
        return [self._packed[version]]


def create_weight_store(keep: int, run: str = "") -> ActorHandle:
    """Start the store beside the driver.

    If it dies it is restarted empty, and fills again with the next version. A generator that is
    asked for an older version gets an error that ends the run; a run that goes on from its
    checkpoint publishes all versions in use.

    Args:
        keep: Number of versions kept (>= 1).
        run: Name of the run, for `actors.naming.named`.
    """
    options = {**beside_driver(), "max_restarts": -1, "max_task_retries": -1}
    return start_actor(WeightStore, named(options, run, "weights"), keep)


@contextmanager
def weight_store(keep: int, run: str = "") -> Iterator[ActorHandle]:
    """Have such a store inside the block; a driver may need one after the other."""
    store = create_weight_store(keep, run)
    try:
        yield store
    finally:
        ray.kill(store, no_restart=True)


def publish(store: ActorHandle, version: WeightVersion, weights: Mapping[str, Tensor]) -> int:
    """Put weights into the store, wait until they are there, and return their size in bytes."""
    from videorl.weights import pack

    packed = pack(weights)
    ray.get(store.put.remote(version, packed))
    return packed.nbytes


def pull(store: ActorHandle, version: WeightVersion) -> dict[str, Tensor]:
    """Fetch published weights into this process; return tensors by name.

    Raises:
        CheckpointError: The version is not in the store.
    """
    from videorl.weights import unpack

    (ref,) = answer(store.get.remote(version))
    return unpack(ray.get(ref))

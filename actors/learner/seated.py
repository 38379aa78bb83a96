"""Ray Train's ranks in a place that is kept for them.

Ray Train makes a placement group for every start of its ranks, and gives it back when one of them
dies: others that wait for a place, such as generators, then have it first. It offers no way to use
a group that is there already (Ray 2.60), so its worker group is told of it inside its controller.
"""

from __future__ import annotations

from typing import ClassVar

import ray
from ray.train import ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.worker_group import WorkerGroup, WorkerGroupContext
from ray.train.v2._internal.execution.worker_group.placement_group_handle import (
    DefaultPlacementGroupHandle,
    PlacementGroupHandle,
)
from ray.train.v2.api.callback import RayTrainCallback
from ray.util.placement_group import PlacementGroup

from videorl.errors import ResourceError


class _Kept(DefaultPlacementGroupHandle):
    """A group that outlives the ranks."""

    def shutdown(self) -> None:
        """Leave it to the next ranks, and in the end to the driver."""


class _SeatedWorkerGroup(WorkerGroup):
    seat: ClassVar[PlacementGroup]

    def _create_placement_group(
        self, scaling_config: ScalingConfig, worker_group_context: WorkerGroupContext
    ) -> PlacementGroupHandle:
        return _Kept(self.seat)


class Seating(ControllerCallback):
    """Has the controller put its ranks into a group.

    Args:
        seat: Has a bundle for every rank.
    """

    def __init__(self, seat: PlacementGroup) -> None:
        check_internals()
        self._seat = seat

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Act on the controller's process, which serves this run alone."""
        _SeatedWorkerGroup.seat = self._seat
        TrainController.worker_group_cls = _SeatedWorkerGroup


def check_internals() -> None:
    """Check that Ray Train still has what is replaced here.

    Otherwise its ranks would wait for ever for a place beside the one that is kept for them.

    Raises:
        ResourceError: This version of Ray has other internals.
    """
    replaced = (
        (WorkerGroup, "_create_placement_group"),
        (TrainController, "worker_group_cls"),
        (DefaultPlacementGroupHandle, "shutdown"),
        (TorchTrainer, "_create_default_callbacks"),
    )
    missing = [f"{kind.__name__}.{name}" for kind, name in replaced if not hasattr(kind, name)]
    if missing:
        raise ResourceError(
            f"Ray {ray.__version__} has no {', '.join(missing)}, by which the learner's ranks get "
            "the places that are kept for them; install the version of constraints.txt"
        )


class SeatedTrainer(TorchTrainer):
    """A trainer whose group of places stays when its controller dies, for the next controller."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]

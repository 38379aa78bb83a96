"""Ray Train's ranks in a place that is kept for them.

Ray Train makes a placement group for every start of its ranks, and gives it back when one of them
dies: others that wait for a place, such as generators, then have it first. It offers no way to use
a group that is there already (Ray 2.60), so its worker group is told of it inside its controller.
"""

from __future__ import annotations

from typing import ClassVar

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
        self._seat = seat

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Act on the controller's process, which serves this run alone."""
        _SeatedWorkerGroup.seat = self._seat
        TrainController.worker_group_cls = _SeatedWorkerGroup


class SeatedTrainer(TorchTrainer):
    """A trainer whose group of places stays when its controller dies, for the next controller."""

    def _create_default_callbacks(self) -> list[RayTrainCallback]:
        callbacks = super()._create_default_callbacks()
        return [one for one in callbacks if not isinstance(one, PlacementGroupCleanerCallback)]

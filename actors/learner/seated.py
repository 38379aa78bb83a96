"""Ray Train's ranks in a place that is kept for them.

Ray Train makes a placement group for every start of its ranks, and gives it back when one of them
dies: others that wait for a place, such as generators, then have it first. It offers no way to use
a group that is there already (Ray 2.60), so its worker group is told of it inside its controller.

Ranks that may become fewer or more have a group each (`actors.seats.rank_seats`), and there are as
many of them as of groups with a place. By itself Ray Train would count what nodes have in total,
be it in use or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import ray
from ray.train import Result, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.context import TrainRunContext
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import ElasticScalingPolicy
from ray.train.v2._internal.execution.worker_group import (
    WorkerGroup,
    WorkerGroupContext,
    worker_group,
)
from ray.train.v2._internal.execution.worker_group.placement_group_handle import (
    DefaultPlacementGroupHandle,
    PlacementGroupHandle,
)
from ray.train.v2.api.callback import RayTrainCallback
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, PlacementGroupID
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

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


def groups_with_a_place(name: str) -> list[PlacementGroup]:
    """Return the placement groups whose names begin so and that have a place, always in order."""
    table: Mapping[str, Mapping[str, Any]] = placement_group_table()
    return [
        PlacementGroup(PlacementGroupID(bytes.fromhex(found)))
        for found, entry in sorted(table.items())
        if entry["name"].startswith(name) and entry["state"] == "CREATED"
    ]


class _ApartWorkerGroup(WorkerGroup):
    """Has each rank in a group of its own."""

    name: ClassVar[str]
    seats: ClassVar[list[PlacementGroup]]

    def _create_placement_group(
        self, scaling_config: ScalingConfig, worker_group_context: WorkerGroupContext
    ) -> PlacementGroupHandle:
        count = worker_group_context.num_workers
        seats = groups_with_a_place(self.name)[:count]
        if len(seats) < count:  # a node was lost since it was decided how many there are
            raise WorkerGroupStartupTimeoutError(num_workers=count)
        _ApartWorkerGroup.seats = seats
        return _Kept(seats[0])


def _own_seat(
    placement_group: PlacementGroup, placement_group_bundle_index: int
) -> PlacementGroupSchedulingStrategy:
    """Return where the rank goes that Ray Train would put into a bundle of one group of all."""
    seat = _ApartWorkerGroup.seats[placement_group_bundle_index]
    return PlacementGroupSchedulingStrategy(seat, 0)


class SeatingApart(ControllerCallback):
    """Has the controller put each rank into a group of its own.

    Args:
        name: Begins the names of these groups.
    """

    def __init__(self, name: str) -> None:
        check_internals()
        self._name = name

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Act on the controller's process, which serves this run alone."""
        _ApartWorkerGroup.name = self._name
        TrainController.worker_group_cls = _ApartWorkerGroup
        # The one thing that `_create_workers` asks about the group, for each of the ranks.
        worker_group.PlacementGroupSchedulingStrategy = _own_seat


class _AsManyAsSeats(ElasticScalingPolicy):
    """As many ranks as have a place; it is the driver that asks for more."""

    def __init__(self, scaling_config: ScalingConfig, name: str) -> None:
        super().__init__(scaling_config)
        self._name = name

    def after_controller_start(self, train_run_context: TrainRunContext) -> None:
        """Ask Ray's autoscaler for nothing: the groups that wait for a place do."""

    def _maybe_send_resource_request(self) -> None:
        pass

    def _get_reserved_resources(self) -> dict[str, Any]:
        return {}

    def _count_possible_workers(self, reserved_resources: Mapping[str, Any]) -> int:
        return min(len(groups_with_a_place(self._name)), self.scaling_config.max_workers)


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
        (TorchTrainer, "_initialize_and_run_controller"),
        (ElasticScalingPolicy, "_maybe_send_resource_request"),
        (ElasticScalingPolicy, "_get_reserved_resources"),
        (ElasticScalingPolicy, "_count_possible_workers"),
        (worker_group, "PlacementGroupSchedulingStrategy"),
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


class ApartTrainer(SeatedTrainer):
    """A trainer with as many ranks as there are places for them, by the name of their groups."""

    def __init__(self, seats_name: str, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._seats_name = seats_name

    def _initialize_and_run_controller(self, **arguments: Any) -> Result:
        policy = _AsManyAsSeats(self.scaling_config, self._seats_name)
        return super()._initialize_and_run_controller(**{**arguments, "scaling_policy": policy})

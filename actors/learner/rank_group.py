"""A group of Ray Train ranks that applies commands in order, whatever dies: the driver's side."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.placement_group import PlacementGroup

from actors.learner.command_log import CommandLog
from actors.learner.commands import Command, Export, Nothing, Rehearse, Restored, Save
from actors.learner.deadlines import LOADING, Deadlines, Work
from actors.learner.own_cluster import ask_this_cluster
from actors.learner.rank_worker import Rank, RankSettings, run_rank
from actors.learner.seated import ApartTrainer, SeatedTrainer, Seating, SeatingApart
from actors.naming import named
from actors.placement import Role, beside_driver, start_actor
from actors.pool.outcomes import answer
from actors.processes.worker_process import own_node
from actors.seats.booking import Booking
from actors.store.folders import unpack_folder
from videorl.errors import LearnerLostError, StoppedError
from videorl.settings.workers import LearnerConfig
from videorl.storage.copies import uri_of

logger = logging.getLogger(__name__)

_POLL_S = 1.0
_REPORT_S = 30.0
_STOP_S = 30.0
_LAST_S = 1.0


@dataclass(frozen=True)
class LearnerResources:
    """How many ranks a learner has, and what each of them gets."""

    num_workers: int
    num_cpus: float
    num_gpus: float
    max_workers: int = 0
    """If larger than `num_workers`, there are as many ranks as places, up to so many."""
    custom: Mapping[str, float] = field(default_factory=dict[str, float])
    """Amounts of custom Ray resources, by name."""
    resize_s: float = 60.0
    """Seconds between checks whether more ranks fit; each resize costs a restart."""
    seat: PlacementGroup | None = None
    """A place that is kept for each rank; None = Ray Train looks for places at every start."""
    seats_name: str = ""
    """Where `max_workers` counts, begins the names of the groups that are the ranks' places."""


def resources_for(role: Role, learner: LearnerConfig, booking: Booking) -> LearnerResources:
    """Return what a learner's ranks get, and where.

    Args:
        role: What each of them needs.
        learner: How many of them there may be.
        booking: The places of the run.
    """
    return LearnerResources(
        role.num_workers,
        role.num_cpus,
        role.num_gpus,
        learner.max_workers,
        role.custom,
        seat=booking.learner,
        seats_name=booking.ranks.name if booking.ranks else "",
    )


class RankGroup:
    """Runs ranks with Ray Train, and feeds them from a command log.

    Args:
        make: Builds a rank's part of the learner, on that rank's device.
        run_dir: The run's folder, visible to every rank.
        resources: How many ranks there are, and what each gets.
        max_failures: After so many failures of the group without progress in between, whoever
            waits for it gets an error; -1 = no limit.
        deadlines: How long ranks may take.
        places: Says who has what, for those who wait for the ranks to be placed.
        run: Name of the run, by which Ray Train's own pages list it.
    """

    def __init__(
        self,
        make: Callable[[torch.device], Rank],
        run_dir: Path,
        resources: LearnerResources,
        max_failures: int,
        deadlines: Deadlines,
        places: Callable[[], str],
        run: str = "learner",
    ) -> None:
        options = named(beside_driver(), run, "learner-commands")
        self._log = start_actor(CommandLog, options, max_failures, deadlines)
        self._places = places
        settings = RankSettings(make, resources.num_cpus, self._log)
        self._run_dir = run_dir
        self._make_trainer = partial(_make_trainer, settings, run_dir, resources, run)
        self._thread = threading.Thread(target=self._fit, name="ray-train", daemon=True)
        self._error: BaseException | None = None
        self._savers = ThreadPoolExecutor(1, "await-checkpoint")
        self._next = 0

    def keep_no_commands(self) -> None:
        """Let go of what is done: a group that dies after that cannot be replaced."""
        ray.get(self._log.keep_none.remote())

    def begin(self) -> None:
        """Start the group without waiting for it."""
        self._thread.start()

    def restored(self, should_stop: Callable[[], bool] = lambda: False) -> Restored:
        """Wait until the group is up; return where it stands.

        Raises:
            LearnerFailedError: The group cannot start.
            StoppedError: `should_stop`, which is asked every second, said so.
        """
        restored: Restored = self._wait(self._log.wait_restored.remote(), should_stop)
        self._next = restored.index
        return restored

    def call(self, command: Command) -> Any:
        """Apply a command on all ranks; return the answer of rank 0.

        Raises:
            LearnerFailedError: The group keeps failing.
        """
        return self._wait(self._send(command))

    def rehearse(self, command: Rehearse) -> Any:
        """Apply a command as `call` does, but never again: a group that starts anew skips it."""
        index = self._next
        result = self.call(command)
        # Its examples are released too.
        ray.get(self._log.append.remote(index, Nothing()))
        return result

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Write a checkpoint in the background; the future fails with the error of the write."""
        saved = self._send(Save(dict(loop_state)))

        def written() -> None:
            if (error := self._wait(saved)) is not None:
                raise error

        return self._savers.submit(written)

    def export(self, folder: Path) -> None:
        """Have rank 0 write the trained model into a folder of the run.

        Raises:
            LearnerFailedError: The group keeps failing.
        """
        # A working copy is on the driver's node alone.
        node = own_node() if uri_of(self._run_dir) else ""
        unpack_folder(self.call(Export(str(folder), node)), folder)

    def num_ranks(self) -> int:
        """Return how many ranks the running group has."""
        count: Any = ray.get(self._log.num_ranks.remote())
        return count

    def nodes(self) -> frozenset[str]:
        """Return the ids of the nodes that ranks are on."""
        found: Any = ray.get(self._log.nodes.remote())
        return found

    def starts(self) -> int:
        """Return how often the worker group has started."""
        count: Any = ray.get(self._log.starts.remote())
        return count

    def close(self) -> None:
        """Let the ranks end; a group that does not within 30 s is killed with the driver."""
        if self._thread.is_alive():
            # Not by a command: ranks that are not up yet go on from nobody knows which.
            ray.get(self._log.stop.remote())
            self._thread.join(_STOP_S)

    def _send(self, command: Command) -> Any:
        """Append a command; return the reference of its answer."""
        index, self._next = self._next, self._next + 1
        ray.get(self._log.append.remote(index, command))
        return self._log.result.remote(index)

    def _wait(self, ref: Any, should_stop: Callable[[], bool] = lambda: False) -> Any:
        """Wait for the log's answer, but not for ever if Ray Train has ended; say what it is."""
        said = time.monotonic()
        while not ray.wait([ref], timeout=_POLL_S)[0]:
            if should_stop():
                raise StoppedError("stopped before the learner was up")
            if (now := time.monotonic()) - said >= _REPORT_S:
                said = now
                self._say(now)
            # The log's verdict may have come since: it knows more.
            if not self._thread.is_alive() and not ray.wait([ref], timeout=_LAST_S)[0]:
                raise LearnerLostError(f"Ray Train ended: {self._error}") from self._error
        return answer(ref)

    def _say(self, now: float) -> None:
        """Log what is waited for: a place, a model that loads, or what takes unusually long."""
        answered: Any = ray.get(self._log.doing.remote())
        work: Work | None = answered
        if work is None:
            logger.warning("waiting for a place for the learner: %s", self._places())
        elif work.what == LOADING or now - work.since > work.limit_s / 2:
            logger.warning("waiting for the learner, %s", work.says(now))

    def _fit(self) -> None:
        """Run Ray Train until the ranks end; start it again if its controller dies."""
        seen = 0
        try:
            # If no group started under the last controller, another would fare no better.
            while not self._fitted() and (starts := self.starts()) > seen:
                logger.warning("Ray Train ended (%s); it is started again", self._error)
                seen = starts
        except BaseException as error:  # whoever waits for the learner raises it
            self._error = error

    def _fitted(self) -> bool:
        """Run Ray Train once; return whether it ended well."""
        try:
            with ask_this_cluster():
                self._make_trainer().fit()
        except Exception as error:
            self._error = error
            return False
        return True


def _make_trainer(
    settings: RankSettings, run_dir: Path, resources: LearnerResources, run: str
) -> TorchTrainer:
    """Return Ray Train's trainer, which restarts without limit: the command log counts failures."""
    per_worker = {"CPU": resources.num_cpus, **resources.custom}
    if resources.num_gpus:
        per_worker["GPU"] = resources.num_gpus
    # Declared for users' callbacks only, but it takes those of its own kind too.
    callbacks: list[Any] = [Seating(resources.seat)] if resources.seat else []
    kind = SeatedTrainer if resources.seat else TorchTrainer
    if name := resources.seats_name:
        callbacks, kind = [SeatingApart(name)], partial(ApartTrainer, name)
    return kind(
        lambda: run_rank(settings),
        torch_config=TorchConfig(backend="nccl" if resources.num_gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=(
                (resources.num_workers, resources.max_workers)
                if resources.max_workers > resources.num_workers
                else resources.num_workers
            ),
            elastic_resize_monitor_interval_s=resources.resize_s,
            use_gpu=bool(resources.num_gpus),
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=run,
            # Ray Train's controller, on the driver's node, alone writes there: never a checkpoint.
            storage_path=str(run_dir / "ray_train"),
            failure_config=FailureConfig(max_failures=-1),
            callbacks=callbacks,
            # Its warnings are about retries on a busy machine; the command log reports restarts.
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )

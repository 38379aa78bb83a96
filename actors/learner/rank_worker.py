"""What runs on every Ray Train rank: build its part, then pull commands and apply them."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from errno import EDQUOT, ENOSPC
from functools import partial
from typing import Any, Protocol

import ray
import ray.train
import ray.train.torch
import torch
from ray.exceptions import ObjectFetchTimedOutError, ObjectLostError

from actors.learner.commands import Command, Restored, Save, Stop
from videorl.errors import CheckpointError, RehearsalError, StoreLostError, VideorlError

logger = logging.getLogger(__name__)


class Rank(Protocol):
    """A rank's part of a learner; all ranks get the same commands in the same order."""

    def start(self) -> Restored:
        """Restore the newest checkpoint, if there is any; return where the learner stands."""
        ...

    def apply(self, command: Command) -> Any:
        """Apply a command; the result of rank 0 is the driver's answer."""
        ...

    def save(self, index: int, loop_state: dict[str, Any]) -> Future[None]:
        """Write a checkpoint that covers the commands up to `index`, perhaps in the background.

        The future of rank 0 fails with an OSError if that fails.
        """
        ...

    def close(self) -> None:
        """Return when all checkpoints under way are written."""
        ...


@dataclass(frozen=True)
class RankSettings:
    """What a rank needs to start."""

    make: Callable[[torch.device], Rank]
    """Builds this rank's part on its device; torch.distributed is up already."""
    num_cpus: float
    """Threads that torch may use; rounded down, at least 1."""
    command_log: Any
    """The `CommandLog` actor that feeds the ranks."""


def run_rank(settings: RankSettings) -> None:
    """Serve commands until `Stop`; report any error to the log before it ends this rank.

    An error raised on purpose while starting would come again at every start, so would that of a
    rehearsal, or of a checkpoint or an export that proved wrong, and media that are lost stay lost:
    these end the learner. This rank then returns without an error, so that Ray Train does not start
    it again.
    """
    log = settings.command_log
    try:
        rank, index, ticket = _start(settings)
    except VideorlError as error:
        _end(log, error)
        return
    except Exception as error:
        ray.get(log.failed.remote(f"{type(error).__name__}: {error}"))
        raise
    try:
        _serve(log, rank, index, ticket)
    except ObjectFetchTimedOutError as error:
        # Its node is slow, not gone: ranks that start again ask for the same media.
        ray.get(log.failed.remote(f"{type(error).__name__}: {error}"))
        raise
    except ObjectLostError as error:
        # The same command, started again, samples the media again.
        lost = f"latents are gone with the node that held them ({type(error).__name__})"
        text = f"{lost}; start the same command again"
        ray.get(log.failed.remote(text, is_final=True, is_lost=True))
    except (CheckpointError, RehearsalError) as error:
        _end(log, error)
    except Exception as error:
        ray.get(log.failed.remote(f"{type(error).__name__}: {error}"))
        raise


def _end(log: Any, error: VideorlError) -> None:
    """Report an error that would come again, as this learner is."""
    # A store that stayed away for as long as a rank waits may be back the next time, as may room.
    cause = error.__cause__
    is_full = isinstance(cause, OSError) and cause.errno in (ENOSPC, EDQUOT)
    is_lost = is_full or isinstance(error, StoreLostError)
    text = f"{type(error).__name__}: {error}"
    ray.get(log.failed.remote(text, is_final=True, is_lost=is_lost))


def is_first() -> bool:
    """Return whether this is rank 0."""
    return ray.train.get_context().get_world_rank() == 0


def _start(settings: RankSettings) -> tuple[Rank, int, int]:
    """Build and restore this rank; return it, the index of the next command, and its ticket."""
    torch.set_num_threads(max(1, int(settings.num_cpus)))
    context = ray.train.get_context()
    number, num_ranks = context.get_world_rank(), context.get_world_size()
    here = ray.get_runtime_context()
    joined = settings.command_log.joined.remote
    ticket: Any = ray.get(joined(number, num_ranks, here.current_actor, here.get_node_id()))
    if is_first():
        # Of what policies say, ranks would all say the same.
        logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
        logging.getLogger("videorl.policies").setLevel(logging.INFO)
        ray.get(settings.command_log.starting.remote(num_ranks))
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    rank = settings.make(device)
    restored = rank.start()
    if is_first():
        ray.get(settings.command_log.restored.remote(restored))
    return rank, restored.index, ticket


def _serve(log: Any, rank: Rank, index: int, ticket: int) -> None:
    number = ray.train.get_context().get_world_rank()
    while not isinstance(command := ray.get(log.command.remote(index, number, ticket)), Stop):
        if isinstance(command, Save):
            written = rank.save(index, command.loop_state)
            if is_first():
                written.add_done_callback(partial(_answer_save, log, index))
        else:
            result = rank.apply(command)
            if is_first():
                ray.get(log.answer.remote(index, result))
        index += 1
    rank.close()


def _answer_save(log: Any, index: int, written: Future[None]) -> None:
    """Report how a write ended; a failed write is an answer, not the end of the run."""
    error = written.exception()
    if error is not None and not isinstance(error, OSError):
        logger.error("the checkpoint writer failed", exc_info=error)
    answer = None if error is None else CheckpointError(str(error))
    ray.get(log.answer.remote(index, answer))

"""Checkpoints of an engine: written whole by rank 0, or in slices by every rank.

Whole is simple, and right for adapters. Every weight of a large model is three float32 copies of it
(weights and both moments), which no host memory should hold at once: each rank then writes what it
updates (`checkpoint.sharded`). Either kind is restored on any number of ranks and ZeRO stage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import ProcessGroup

from videorl.errors import CheckpointError
from videorl.learning.engines import Engine
from videorl.learning.engines.slices import Slice, read_slices, write_slices
from videorl.learning.engines.whole_state import with_moments
from videorl.run.checkpoint_state import is_stored
from videorl.run.checkpoints import CheckpointFolder

_T = TypeVar("_T")
_OPTIMIZER = "optimizer"
MANY = 500_000_000
"""Trained numbers above which `auto` writes slices: 6 GB of state."""


class Saving:
    """Saves and restores what an engine updates; all ranks make the same calls.

    Args:
        checkpoints: Where; shared by all ranks.
        engine: Whose parameters and optimizer state.
        sharded: `checkpoint.sharded`.
    """

    def __init__(
        self, checkpoints: CheckpointFolder, engine: Engine, sharded: bool | str = "auto"
    ) -> None:
        self._checkpoints = checkpoints
        self._engine = engine
        self._is_sharded = engine.num_cut > MANY if sharded == "auto" else bool(sharded)

    def copied(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> Callable[[], None]:
        """Copy the engine's state, and return what writes checkpoint `step` with it.

        That may be called in another thread, once on every rank. It raises an OSError if the
        checkpoint could not be written (full disk, for instance); older ones are untouched.

        Args:
            step: Its number.
            tensors: Other files to write on rank 0: name, without ending -> what it holds.
            state: Of `CheckpointFolder.commit`.
        """
        if self._is_sharded:
            share, group = self._engine.share(), self._engine.cpu_group()
            return partial(self._write_slices, step, share, group, tensors, state)
        whole = self._engine.state()
        if self._engine.rank > 0:
            return lambda: None
        return partial(self._checkpoints.write, step, {_OPTIMIZER: whole, **tensors}, state)

    def restore(self, folder: Path) -> None:
        """Restore the engine from a checkpoint of either kind."""
        if (folder / _OPTIMIZER).is_dir():
            share = self._engine.share()
            read_slices(folder / _OPTIMIZER, share)
            self._engine.load_share(share)
        else:
            self._engine.load_state(load_file(folder / f"{_OPTIMIZER}.safetensors"))

    def rehearse(
        self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Write a checkpoint beside those of the run, read it on every rank, and remove it.

        It is as large as a later one: the optimizer's moments are there, as zeros.

        Raises:
            CheckpointError: It cannot be written, or a rank cannot read it.
        """
        trial = Saving(self._checkpoints.trial(), self._engine, self._is_sharded)
        reading = self._checkpoints.trial()
        try:
            trial._write_trial(tensors, state)
            self._wait_for_all()
            found = reading.latest()
            if found is None:
                raise CheckpointError(
                    f"rank {self._engine.rank} does not see the checkpoint that rank 0 wrote: set "
                    "checkpoint.location, or run_dir, to a place that every learner rank reaches"
                )
            for file in found[0].glob("*.safetensors"):
                load_file(file)
            if self._is_sharded:
                read_slices(found[0] / _OPTIMIZER, self._engine.share())
            self._wait_for_all()
        finally:
            reading.let_go()
            if self._engine.rank == 0:
                trial._checkpoints.remove()

    def _write_trial(
        self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        if self._is_sharded:
            self.copied(0, tensors, state)()
            return
        whole = self._engine.state()
        if self._engine.rank == 0:
            self._checkpoints.write(0, {_OPTIMIZER: with_moments(whole), **tensors}, state)

    def _wait_for_all(self) -> None:
        self._engine.sum_over_ranks(torch.zeros(1))

    def _write_slices(
        self,
        step: int,
        share: Mapping[str, Slice],
        group: ProcessGroup | None,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
    ) -> None:
        """Write a checkpoint with all ranks; whatever fails on one fails on all."""
        checkpoints, is_first = self._checkpoints, self._engine.rank == 0
        folder, stored = checkpoints.partial(step), is_stored(state)
        begin = partial(checkpoints.begin, step, in_parts=True, stored=stored)
        add = partial(checkpoints.add_part, step, is_whole=is_first, stored=stored)
        try:
            _together(group, lambda: is_first and begin())
            write_slices(folder / _OPTIMIZER, share, group)
            parts = _together(group, add)
            _together(group, lambda: is_first and checkpoints.finish(step, tensors, state, parts))
        except OSError:
            if is_first or checkpoints.is_remote:  # where each rank writes into a folder of its own
                checkpoints.abandon(step)
            raise


def _together(group: ProcessGroup | None, do: Callable[[], _T]) -> list[_T]:
    """Call a function on every rank, and return what it returned on each.

    Raises:
        CheckpointError: It raised an OSError on a rank; raised on all.
    """
    try:
        own: tuple[_T | None, str] = do(), ""
    except OSError as error:
        own = None, f"{error}"
    if group is None:
        found: list[Any] = [own]
    else:
        found = [None] * group.size()
        torch.distributed.all_gather_object(found, own, group)
    if problems := [
        f"rank {rank}: {problem}" for rank, (_, problem) in enumerate(found) if problem
    ]:
        raise CheckpointError("; ".join(problems))
    return [value for value, _ in found]

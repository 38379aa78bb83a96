"""A folder of checkpoints that is never seen half-written, here or in an object store.

An object store cannot rename. There, `state.json` is uploaded last and deleted first: a checkpoint
with it is complete.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from videorl.config import CheckpointConfig
from videorl.errors import CheckpointError, StoreLostError
from videorl.files import sync
from videorl.files.steps import step_name, step_of
from videorl.run.checkpoint_files import (
    FORMAT,
    STATE,
    NewerFormatError,
    read_state,
    sizes_below,
    writing,
)
from videorl.run.checkpoint_state import WORTH_KEEPING, is_stored, loop_state
from videorl.run.remote_folder import RemoteFolder
from videorl.storage.access import checker
from videorl.storage.place import below, is_uri
from videorl.storage.shared import let_go

_LONGEST_WAIT_S = 180.0
"""For a store, by one checkpoint: less than `checkpoint.timeout_s`, after which it is given up."""
logger = logging.getLogger(__name__)


class CheckpointFolder:
    """`step-000010/` folders below one place, written by one process at a time.

    Args:
        location: A folder, created when first written; or a URI that pyarrow opens, such as
            `s3://bucket/run` or `gs://bucket/run`, with the credentials of the environment.
        keep: The newest so many (>= 1) stay.
        keep_every: So do those of steps that are multiples of it; 0 = of none.
        patience_s: How long a call waits for an object store that does not answer.
        is_ours: Asked before an object store is changed, see `RemoteFolder`.
    """

    def __init__(
        self,
        location: str | Path,
        keep: int,
        keep_every: int = 0,
        patience_s: float = 0.0,
        is_ours: Callable[[], None] = lambda: None,
    ) -> None:
        self._keep = keep
        self._keep_every = keep_every
        self._location = str(location).rstrip("/")
        self._patience_s, self._is_ours = patience_s, is_ours
        self._remote: RemoteFolder | None = None
        if is_uri(location):
            self._remote = RemoteFolder(str(location), patience_s, is_ours)
        self._fetched = set[Path]()
        self._directory = self._remote.copy if self._remote else Path(location)

    @property
    def is_remote(self) -> bool:
        """Whether an object store has them, and each process writes into a folder of its own."""
        return self._remote is not None

    def check_writable(self) -> None:
        """See that checkpoints can be written, before long work begins.

        Raises:
            CheckpointError: They cannot.
        """
        if self._remote:
            self._remote.check_writable()
            return
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self._directory) as probe:
                probe.write(b"0")
        except OSError as error:
            raise CheckpointError(
                f"checkpoint.location: {self._directory} cannot be written to "
                f"({error.strerror}); give a folder, or a URI, that this machine and every "
                "learner rank can write to"
            ) from error

    def _name(self, step: int) -> Path:
        return self._directory / step_name(step)

    def write(
        self, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Write checkpoint `step` whole, or leave no trace of it.

        Args:
            step: Its number.
            tensors: Name of a safetensors file, without ending -> what it holds.
            state: What `commit` adds.

        Raises:
            OSError: It could not be written (full disk, for instance); older ones are untouched.
        """
        try:
            self.begin(step)
            self.finish(step, tensors, state)
        except OSError:
            self.abandon(step)
            raise

    def partial(self, step: int) -> Path:
        """Return the folder that checkpoint `step` is written into, before it is complete."""
        return self._name(step).with_suffix(".partial")

    def begin(self, step: int, *, in_parts: bool = False, stored: bool = True) -> Path:
        """Return an empty folder to write checkpoint `step` into.

        Args:
            step: Which.
            in_parts: Other processes hand over parts of it before it is finished.
            stored: Whether an object store gets it; see `is_stored`.
        """
        partial, name = self.partial(step), self._name(step).name
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        if self._remote:
            self._remote.forget_kept(lambda kept: kept == name)
            if in_parts and stored:
                self._remote.withdraw(name)
        return partial

    def add_part(self, step: int, *, is_whole: bool, stored: bool = True) -> dict[str, int]:
        """Hand over what this process has written of checkpoint `step`; return its files' sizes.

        Args:
            step: Which.
            is_whole: This process writes the rest, and hands over what it has with that.
            stored: As in `begin`.
        """
        partial, name = self.partial(step), self._name(step).name
        sizes = sizes_below(partial)
        if self._remote and not is_whole:
            if stored:
                self._remote.add(partial, name)
            else:
                self._remote.keep_part(partial, name)
            shutil.rmtree(partial, ignore_errors=True)  # this process's own: nobody else has it
        return sizes

    def finish(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        parts: Sequence[Mapping[str, int]] = (),
    ) -> Path:
        """Add files (see `write`) to a checkpoint that was begun, and `commit` it."""
        partial = self.partial(step)
        with writing(partial):
            for name, named in tensors.items():
                save_file(dict(named), partial / f"{name}.safetensors")
        return self.commit(step, state, parts)

    def commit(
        self, step: int, state: Mapping[str, Any], parts: Sequence[Mapping[str, int]] = ()
    ) -> Path:
        """Add `state` (JSON), make the folder durable under its final name and drop old ones.

        Steps that the loop's state lists under `WORTH_KEEPING` stay.

        Args:
            step: Which.
            state: What `latest` returns with the folder.
            parts: What other processes have written: relative paths -> bytes.

        Raises:
            CheckpointError: A part is not seen here: the folder is not shared.
        """
        partial, final = self.partial(step), self._name(step)
        files = {name: size for part in parts for name, size in part.items()}
        here = sizes_below(partial)
        if not self._remote and (unseen := sorted(files.keys() - here)):
            raise CheckpointError(
                f"{partial} does not have {unseen[0]}, which another learner rank wrote: set "
                "checkpoint.location, or run_dir, to a place that every learner rank reaches"
            )
        content = {"format": FORMAT, "step": step, "files": files | here, **state}
        (partial / STATE).write_text(json.dumps(content))
        for path in (*partial.rglob("*"), partial):
            sync(path)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        sync(self._directory)
        if self._remote and not is_stored(state):
            raise StoreLostError(f"{self._location} is lost: {self._remote.keep(final)}")
        if self._remote:
            self._remote.upload(final)
        try:
            self._tidy(step, loop_state(state).get(WORTH_KEEPING, ()))
        except CheckpointError as error:  # the new one is safe; the next commit tries again
            logger.warning("old checkpoints could not be removed: %s", error)
        return final

    def _tidy(self, step: int, worth_keeping: Collection[int]) -> None:
        """Remove checkpoints that are not kept, and what is left of unfinished older ones."""
        for old in self._dispensable(worth_keeping):
            shutil.rmtree(self._name(old), ignore_errors=True)
            if self._remote:
                self._remote.delete(self._name(old).name)
        endings = ["", ".partial"] if self._remote else [".partial"]  # the store has the older ones
        for path in self._directory.glob("step-*"):
            if (number := step_of(path.name)) is None or number >= step:
                continue
            if path.suffix in endings:
                shutil.rmtree(path, ignore_errors=True)
        if self._remote is None:
            return
        for name in self._remote.unfinished():
            if (number := step_of(name)) is not None and number < step:
                self._remote.delete(name)

    def _dispensable(self, worth_keeping: Collection[int]) -> list[int]:
        """Return the steps whose checkpoints are not kept."""
        every = self._keep_every
        old = self.steps()[: -self._keep]
        return [n for n in old if n not in worth_keeping and not (every and n % every == 0)]

    def abandon(self, step: int) -> None:
        """Remove what `begin` made, after a failed write."""
        shutil.rmtree(self.partial(step), ignore_errors=True)

    def trial(self) -> CheckpointFolder:
        """Return a folder inside this one, for a checkpoint that is none of the run."""
        place = below(self._location, "rehearsal")
        return CheckpointFolder(place, 1, 0, self._patience_s, self._is_ours)

    def remove(self) -> None:
        """Remove all checkpoints of this folder, and the folder.

        Raises:
            CheckpointError: The object store cannot be reached.
        """
        if self._remote:
            for step in self.steps():
                self._remote.delete(self._name(step).name)
        shutil.rmtree(self._directory, ignore_errors=True)

    def bring_kept(self) -> None:
        """Store the checkpoints that an object store did not take when they were written here.

        Raises:
            StoreLostError: It does not answer now either.
        """
        if self._remote and (names := self._remote.bring_kept()):
            logger.warning("stored what was kept on this machine: %s", ", ".join(names))

    def remove_after(self, step: int) -> None:
        """Remove the checkpoints of later steps than `step`, the newest first.

        Raises:
            OSError: One could not be removed: a run would go on from it.
        """
        if self._remote:
            self._remote.forget_kept(lambda name: (step_of(name) or 0) > step)
        for newer in reversed([number for number in self.steps() if number > step]):
            if self._remote:
                self._remote.remove(self._name(newer).name)
            if self._name(newer).exists():
                shutil.rmtree(self._name(newer))

    def steps(self) -> list[int]:
        """Return the steps of complete checkpoints, oldest first."""
        if self._remote:
            names = self._remote.complete()
        else:
            names = [path.name for path in self._directory.glob("step-*") if path.is_dir()]
        found = (re.fullmatch(r"step-(\d+)", name) for name in names)
        return sorted(int(name[1]) for name in found if name)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the newest readable checkpoint and its state, or None if there is none.

        A remote one is first copied to this machine, once for all its processes, and stays until
        `let_go`, or this process ends.

        Raises:
            CheckpointError: It was written by a newer version of this format, or every
                checkpoint is damaged: going on from scratch would bury finished work. Or the
                place cannot be reached.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            path = self._local(step)  # out of reach is not damaged: that error is raised
            try:
                return path, read_state(path)
            except (OSError, ValueError, KeyError, TypeError) as error:
                if isinstance(error, NewerFormatError):
                    raise
                logger.warning("skipping damaged checkpoint %s: %s", path, error)
                damaged.append(f"{path.name}: {error}")
        if damaged:
            raise CheckpointError(
                f"no checkpoint in {self._directory} can be read ({'; '.join(damaged)}); move the "
                "folder away to start afresh"
            )
        return None

    def at(self, step: int) -> tuple[Path, dict[str, Any]]:
        """Return the checkpoint of a step and its state.

        Raises:
            CheckpointError: There is none, or it is damaged.
        """
        if step not in (steps := self.steps()):
            there = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(
                f"there is no checkpoint of step {step} in {self._location}, but of: {there}"
            )
        path = self._local(step)
        try:
            return path, read_state(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error

    def let_go(self) -> None:
        """Remove what was copied from an object store, if no other process reads it."""
        while self._fetched:
            let_go(self._fetched.pop())

    def _local(self, step: int) -> Path:
        """Return a checkpoint's folder on this machine, which has all of it after that."""
        path = self._name(step)
        if self._remote is None:
            return path
        found = self._remote.local(path)
        if found != path:
            self._fetched.add(found)
        return found


def open_checkpoints(config: CheckpointConfig, run_dir: Path) -> CheckpointFolder:
    """Return the checkpoints of a run, in its folder unless the recipe says where."""
    place, patience_s = config.location or run_dir / "checkpoints", config.patience_s
    patience_s = min(patience_s, _LONGEST_WAIT_S)
    return CheckpointFolder(place, config.keep, config.keep_every, patience_s, checker(run_dir))

"""Checkpoints are written while the loop goes on, one at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial

from videorl.errors import CheckpointError, RollbackError, StoreLostError
from videorl.protocols import Archive, Learner, ReferenceUpdater
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoint_state import WORTH_KEEPING

logger = logging.getLogger(__name__)


class Checkpoints:
    """Begins checkpoints and remembers the newest one.

    One that cannot be written (full disk) costs an error message, not the run: the older one
    stands, and the next interval tries again.

    Args:
        archive: Flushed first, so that no checkpoint is ahead of it.
        learner: Writes them.
        reference: Its state is part of them.
        step: Of the checkpoint that the run started from.
        note: Told of every checkpoint; None = the run has no folder.
        timeout_s: A checkpoint that is not written after so many seconds counts as failed.
        worth_keeping: Returns the steps whose checkpoints stay when older ones are dropped.
    """

    def __init__(
        self,
        archive: Archive,
        learner: Learner,
        reference: ReferenceUpdater,
        step: int,
        note: CheckpointNote | None = None,
        timeout_s: float | None = None,
        worth_keeping: Callable[[], Sequence[int]] = tuple,
    ) -> None:
        self._timeout_s = timeout_s
        self._archive = archive
        self._learner = learner
        self._reference = reference
        self._newest = step
        self._note = note
        self._pending: tuple[int, Future[None]] | None = None
        self._worth_keeping = worth_keeping

    def __enter__(self) -> Checkpoints:
        """Begin to keep checkpoints."""
        return self

    def __exit__(self, *error: object) -> None:
        """Wait for what is being written, whatever ended the run."""
        self._wait()

    def begin(self, step: int) -> None:
        """Write a checkpoint in the background, once the one before is written.

        Raises:
            StoreLostError: What the run wrote before cannot be stored. The checkpoint is written
                all the same, and kept on its machine.
        """
        self._wait()
        self._archive.flush()
        try:
            if self._note:
                self._note.before_save()
        except StoreLostError:
            self._save(step, stored=False)
            self._wait()
            self._newest = step  # as far as this machine goes: do not try again at the end
            raise
        self._save(step)

    def _save(self, step: int, *, stored: bool = True) -> None:
        state = {"step": step, "reference": self._reference.state()}
        state |= self._note.state(stored=stored) if self._note else {}
        if kept := [*self._worth_keeping()]:
            state[WORTH_KEEPING] = kept
        self._pending = step, self._learner.save(state)

    def asking(
        self,
        should_stop: Callable[[], bool],
        is_warned: Callable[[], bool],
        step: Callable[[], int],
    ) -> Callable[[], bool]:
        """Return `should_stop`, which also begins a checkpoint of `step()` after each notice.

        Args:
            should_stop: Asked several times a second, also while a round is waited for.
            is_warned: Says once of each notice that what computes the steps will be gone soon.
            step: Where the run stands.
        """

        def asked() -> bool:
            if is_warned() and step() not in (self._newest, self._pending and self._pending[0]):
                self.begin(step())
            return should_stop()

        return asked

    def finish(self, step: int) -> None:
        """Return when there is a checkpoint of `step`, or it could not be written."""
        self._wait()
        if self._newest != step:
            self.begin(step)
            self._wait()

    @contextmanager
    def before_errors(self, step: int) -> Iterator[None]:
        """Write a checkpoint of `step` before an error leaves the block, if that is possible.

        Not where the run goes back to an earlier one: it would be removed at once.
        """
        try:
            yield
        except RollbackError:
            raise
        except Exception:
            try:
                self.finish(step)
            except Exception as error:  # the first error is the one to mend
                logger.warning("no checkpoint of step %d before the end: %s", step, error)
            raise

    def _wait(self) -> None:
        if self._pending is None:
            return
        (step, written), self._pending = self._pending, None
        write = partial(_result, written, self._timeout_s)
        self._newest = newest_after(write, step, self._newest, self._note)


def _result(written: Future[None], timeout_s: float | None) -> None:
    """Wait for a checkpoint; a store that hangs must not hold the run, or its end, for ever."""
    if written not in wait([written], timeout_s).done:
        raise CheckpointError(f"it was not written within {timeout_s:.0f} s")
    written.result()


def newest_after(
    write: Callable[[], object], step: int, newest: int, note: CheckpointNote | None = None
) -> int:
    """Write the checkpoint of `step`; return the step of the newest one on disk.

    An OSError (a full disk) is logged and does not end the run: `newest` is then still the newest.
    """
    try:
        write()
        if note:
            note.saved(step)
    except OSError as error:
        logger.error(
            "checkpoint at step %d could not be written, the last one is from step %d: %s",
            step,
            newest,
            error,
        )
        return newest
    return step

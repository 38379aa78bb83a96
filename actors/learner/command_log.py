"""The learner's commands in order, kept until a checkpoint covers them.

Learner ranks pull command after command. If their group dies, Ray Train starts it again; it
restores the newest checkpoint and pulls the later commands once more: the same examples with the
same seeds, hence the same weights. The driver notices only the delay. A kept command holds handles
of its media, so these stay in the object store.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any, TypeAlias

from videorl.errors import LearnerFailedError
from videorl.types import (
    Media,
    PromptExample,
    SampleRequest,
    TrainingExample,
    WeightVersion,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Step:
    """Apply optimizer step `step` to examples, and publish the weights."""

    step: int
    examples: tuple[TrainingExample | PromptExample, ...]


@dataclass(frozen=True, slots=True)
class Train:
    """Apply optimizer step `step` of a learner that reads its own examples."""

    step: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Sample with the live policy, as a generator would."""

    request: SampleRequest
    embeds: Media
    negative_embeds: Media


@dataclass(frozen=True, slots=True)
class UpdateReference:
    """Make the reference the policy of `version`."""

    version: WeightVersion


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint."""

    loop_state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Export:
    """Write the trained model in its published format to a directory."""

    directory: str


@dataclass(frozen=True, slots=True)
class RehearseStep:
    """Go forward and backward once, without an update."""

    examples: tuple[TrainingExample | PromptExample, ...]


@dataclass(frozen=True, slots=True)
class RehearseCheckpoint:
    """Write a checkpoint, read it and remove it."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Do nothing: takes the place of a rehearsal, which is not replayed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the ranks."""


Rehearse: TypeAlias = RehearseStep | RehearseCheckpoint
Command: TypeAlias = (
    Step | Train | Sample | UpdateReference | Save | Export | Rehearse | Nothing | Stop
)


@dataclass(frozen=True, slots=True)
class Restored:
    """Where the learner stands after a start."""

    index: int
    """The next command it will ask for."""
    versions: tuple[WeightVersion, ...]
    """Published versions still in use, the newest last."""
    loop_state: dict[str, Any] | None
    num_parameters: int = 0
    """Of a policy's transformer."""


class CommandLog:
    """An asyncio actor between the driver and the learner ranks.

    Args:
        max_failures: After so many failures of the group without a command finished for the first
            time in between, everybody who waits gets `LearnerFailedError`; -1 = no limit.
    """

    def __init__(self, max_failures: int) -> None:
        self._max_failures = max_failures
        self._commands: dict[int, Command] = {}
        self._results: dict[int, Any] = {}
        self._restored: Restored | None = None
        self._starts = 0
        self._num_ranks = 0
        self._attempts = 0
        """Starts of the group since the last progress."""
        self._attempt_failed = False
        self._is_final = False
        self._last_error = "its processes died"
        self._first = 0
        """Index of the oldest command that can still be replayed."""
        self._answered: set[int] = set()
        """Indices of commands that were finished once and can still be replayed."""
        self._changed = asyncio.Condition()

    async def append(self, index: int, command: Command) -> None:
        """Add a command (driver)."""
        async with self._changed:
            self._commands[index] = command
            self._changed.notify_all()

    async def command(self, index: int) -> Command:
        """Return command `index` as soon as it is there (every rank)."""
        async with self._changed:
            await self._changed.wait_for(lambda: index in self._commands)
            return self._commands[index]

    async def starting(self, num_ranks: int) -> None:
        """Report that the group starts (rank 0), before it does anything that can fail."""
        async with self._changed:
            self._num_ranks = num_ranks
            self._attempts += 1
            self._attempt_failed = False
            self._changed.notify_all()

    async def restored(self, restored: Restored) -> None:
        """Report where the learner stands (rank 0, at every start).

        Raises:
            LearnerFailedError: It restored a checkpoint that is older than the oldest command.
        """
        async with self._changed:
            if self._restored is None:
                self._restored, self._first = restored, restored.index
            elif restored.index < self._first:
                raise LearnerFailedError(
                    f"the learner restored a checkpoint that ends before command {restored.index},"
                    f" but commands before {self._first} are no longer kept; stop the run and start"
                    " it again"
                )
            else:
                logger.warning(
                    "learner restarted, replaying from command %d (start %d)",
                    restored.index,
                    self._starts + 1,
                )
                # It may have died between writing a checkpoint and reporting it.
                self._finish(restored.index - 1, None)
            self._starts += 1
            self._changed.notify_all()

    async def answer(self, index: int, result: Any) -> None:
        """Report the result of a command (rank 0); a replayed command keeps its first result."""
        async with self._changed:
            self._finish(index, result)
            self._changed.notify_all()

    async def failed(self, error: str, *, is_final: bool = False) -> None:
        """Report why the group is about to end (any rank; the first report is the cause).

        `is_final` means that it would fail in the same way again.
        """
        async with self._changed:
            self._is_final = self._is_final or is_final
            if not self._attempt_failed:
                self._attempt_failed = True
                self._last_error = error
            self._changed.notify_all()

    async def wait_restored(self) -> Restored:
        """Return where the learner stood when it was up for the first time (driver)."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._restored is not None or self._gave_up())
            if self._restored is None:
                raise LearnerFailedError(self._verdict())
            return self._restored

    async def result(self, index: int) -> Any:
        """Return the result of command `index` once (driver)."""
        async with self._changed:
            await self._changed.wait_for(lambda: index in self._results or self._gave_up())
            if index not in self._results:
                raise LearnerFailedError(self._verdict())
            return self._results.pop(index)

    async def num_ranks(self) -> int:
        """Return the number of ranks of the group that started last."""
        return self._num_ranks

    async def starts(self) -> int:
        """Return how often a group has started."""
        return self._starts

    def _finish(self, index: int, result: Any) -> None:
        """Keep the first result of a command, and forget commands that a checkpoint covers.

        A `Save` is finished after commands that follow it, as it is written in the background.
        """
        if index >= self._first and index not in self._answered:
            self._answered.add(index)
            self._results[index] = result
            self._attempts, self._attempt_failed = 1, False
        if isinstance(self._commands.get(index), Save) and not isinstance(result, Exception):
            self._first = index + 1
            for covered in [number for number in self._commands if number <= index]:
                del self._commands[covered]
            self._answered = {number for number in self._answered if number > index}

    def _failures(self) -> int:
        """Return how many attempts ended without progress; the running one may have failed too."""
        return self._attempts - (0 if self._attempt_failed else 1)

    def _gave_up(self) -> bool:
        return self._is_final or 0 <= self._max_failures < self._failures()

    def _verdict(self) -> str:
        if self._is_final:
            verb = "start" if self._restored is None else "go on"
            return f"the learner cannot {verb}: {self._last_error}"
        return (
            f"the learner failed {self._failures()} times in a row; "
            f"the last time: {self._last_error}"
        )

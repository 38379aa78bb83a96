"""The learner's commands in order, kept until a checkpoint covers them.

Learner ranks pull command after command. If their group dies, Ray Train starts it again; it
restores the newest checkpoint and pulls the later commands once more: the same examples with the
same seeds, hence the same weights. The driver notices only the delay. A kept command holds handles
of the latents and embeddings that it is about, so these stay in the object store. Where there are
no checkpoints, a command goes as soon as all ranks are past it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import ray
from ray.exceptions import RayActorError

from actors.learner.commands import Command, Restored, Save, Stop
from actors.learner.deadlines import Deadlines, RankClock, Work
from actors.naming import shown_by_name
from videorl.errors import CheckpointError, LearnerFailedError, LearnerLostError

logger = logging.getLogger(__name__)

_LOOK_S = 5.0
_ALIVE_S = 10.0
"""How long a process may take to say that it lives."""


@shown_by_name
class CommandLog:
    """An asyncio actor between the driver and the learner ranks.

    Args:
        max_failures: After so many failures of the group without a command finished for the first
            time in between, everybody who waits gets `LearnerFailedError`; -1 = no limit.
        deadlines: Ranks that take longer are killed, which counts as a failure.
    """

    def __init__(self, max_failures: int, deadlines: Deadlines) -> None:
        self._max_failures = max_failures
        self._replays = True
        self._clock = RankClock(deadlines)
        self._processes: dict[int, Any] = {}
        """Rank -> the actor that it runs in."""
        self._nodes: dict[int, str] = {}
        """Rank -> id of its node."""
        self._joins = 0
        self._asked: dict[int, int] = {}
        """Rank -> the newest command that it has asked for."""
        self._tickets: dict[int, int] = {}
        """Rank -> what `joined` told the process that has this rank now."""
        self._saving: dict[int, float] = {}
        """Index of a `Save` that is not answered -> when it was asked for."""
        self._watching: asyncio.Task[None] | None = None
        self._commands: dict[int, Command] = {}
        self._results: dict[int, Any] = {}
        self._restored: Restored | None = None
        self._starts = 0
        self._num_ranks = 0
        self._attempts = 0
        """Starts of the group since the last progress."""
        self._attempt_failed = False
        self._is_final = self._is_lost = self._is_over = False
        self._last_error = "its processes died"
        self._first = 0
        """Index of the oldest command that can still be replayed."""
        self._answered: set[int] = set()
        """Indices of commands that were finished once and can still be replayed."""
        self._changed = asyncio.Condition()

    async def keep_none(self) -> None:
        """Keep no commands for a group that starts again: those that all ranks are past go."""
        self._replays = False

    async def append(self, index: int, command: Command) -> None:
        """Add a command (driver)."""
        async with self._changed:
            self._commands[index] = command
            if isinstance(command, Save):
                self._saving[index] = time.monotonic()
            self._watch()
            self._changed.notify_all()

    async def command(self, index: int, rank: int = 0, ticket: int = 0) -> Command:
        """Return command `index` as soon as it is there (every rank, with its ticket).

        A process that died while it waited is still waited for here: what it would begin is no
        work of the group that came after.
        """
        async with self._changed:
            if ticket == self._tickets.get(rank, 0):
                self._clock.is_idle(rank)
                self._asked[rank] = index
                self._let_go()
            await self._changed.wait_for(lambda: index in self._commands or self._is_over)
            command = self._commands.get(index, Stop())
            if ticket == self._tickets.get(rank, 0):
                self._clock.begins(rank, command, time.monotonic())
            return command

    async def stop(self) -> None:
        """Have ranks end when they are past all commands that there are (driver)."""
        async with self._changed:
            self._is_over = True
            self._changed.notify_all()

    async def joined(self, rank: int, num_ranks: int, process: Any, node: str = "") -> int:
        """Report that a rank begins to load (every rank, first of all); return its ticket."""
        async with self._changed:
            self._nodes = {n: one for n, one in self._nodes.items() if n < num_ranks}
            self._nodes[rank] = node
            self._processes = {n: one for n, one in self._processes.items() if n < num_ranks}
            self._processes[rank] = process
            self._joins += 1
            self._tickets = {n: one for n, one in self._tickets.items() if n < num_ranks}
            self._tickets[rank] = self._joins
            self._asked = {n: index for n, index in self._asked.items() if n < num_ranks}
            self._clock.starts(rank, num_ranks, time.monotonic())
            self._watch()
            return self._joins

    async def starting(self, num_ranks: int) -> None:
        """Report that the group starts (rank 0), before it does anything that can fail.

        A group of another size than the last, of which no rank reported an error, follows nodes
        that came or went: that is no failure, however often it happens.
        """
        async with self._changed:
            is_resized = self._attempts > 0 and num_ranks != self._num_ranks
            if not is_resized or self._attempt_failed:
                self._attempts += 1
            self._num_ranks = num_ranks
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
                    f" but commands before {self._first} are no longer kept; {self._advice()}"
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

    async def failed(self, error: str, *, is_final: bool = False, is_lost: bool = False) -> None:
        """Report why the group is about to end (any rank; the first report is the cause).

        `is_final` means that this learner would fail in the same way again; `is_lost`, that the
        same command, started again, need not.
        """
        async with self._changed:
            self._is_final = self._is_final or is_final
            self._is_lost = self._is_lost or is_lost
            self._note_failure(error)
            self._changed.notify_all()

    async def look(self) -> None:
        """End what is beyond its deadline: checkpoints fail, the processes of ranks are killed."""
        now, limit_s = time.monotonic(), self._clock.deadlines.save_s
        async with self._changed:
            for index in [index for index, asked in self._saving.items() if now - asked > limit_s]:
                self._finish(index, CheckpointError(f"it was not written within {limit_s:.0f} s"))
            self._changed.notify_all()
        if (late := self._clock.overdue(now)) is None:
            return
        is_alive = await _lives(self._processes.get(late.rank))
        if self._clock.overdue(time.monotonic()) != late:
            return  # it is done meanwhile, or another group has begun
        if not is_alive:
            self._clock.is_idle(late.rank)  # Ray Train ends its group, and starts another
            return
        logger.error("learner, %s; its processes are killed", late.says(now))
        async with self._changed:
            self._note_failure(f"it hung ({late.says(now)})")
            self._changed.notify_all()
        for process in self._processes.values():
            if process is not None:
                ray.kill(process)

    async def doing(self) -> Work | None:
        """Return what a rank does; of several, what is nearest to its deadline; None = nothing."""
        if (work := self._clock.longest()) is None and self._saving:
            since = min(self._saving.values())
            return Work(0, "writing a checkpoint", since, self._clock.deadlines.save_s)
        return work

    async def wait_restored(self) -> Restored:
        """Return where the learner stood when it was up for the first time (driver)."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._restored is not None or self._gave_up())
            if self._restored is None:
                raise self._verdict()
            return self._restored

    async def result(self, index: int) -> Any:
        """Return the result of command `index` once (driver)."""
        async with self._changed:
            await self._changed.wait_for(lambda: index in self._results or self._gave_up())
            if index not in self._results:
                raise self._verdict()
            return self._results.pop(index)

    async def num_ranks(self) -> int:
        """Return the number of ranks of the group that started last."""
        return self._num_ranks

    async def nodes(self) -> frozenset[str]:
        """Return the ids of the nodes that ranks are on."""
        return frozenset(self._nodes.values())

    async def starts(self) -> int:
        """Return how often a group has started."""
        return self._starts

    def _finish(self, index: int, result: Any) -> None:
        """Keep the first result of a command, and forget commands that a checkpoint covers.

        A `Save` is finished after commands that follow it, as it is written in the background.
        """
        self._saving.pop(index, None)
        if index >= self._first and index not in self._answered:
            self._answered.add(index)
            self._results[index] = result
            self._attempts, self._attempt_failed = 1, False
        if isinstance(self._commands.get(index), Save) and not isinstance(result, Exception):
            self._forget(index)

    def _let_go(self) -> None:
        """Forget what all ranks are past, if nobody will ask for it again."""
        past = min([*self._asked.values(), *self._saving]) - 1
        if not self._replays and len(self._asked) >= self._num_ranks and past in self._answered:
            self._forget(past)

    def _forget(self, index: int) -> None:
        """Forget commands up to `index`, and the media that they name."""
        self._first = index + 1
        self._commands = {n: command for n, command in self._commands.items() if n > index}
        self._answered = {number for number in self._answered if number > index}

    def _advice(self) -> str:
        if self._replays:
            return "stop the run and start it again"
        return (
            "with checkpoint.interval=0 a learner that was lost cannot be replaced: the run has to "
            "begin anew, with checkpoint.interval above 0"
        )

    def _failures(self) -> int:
        """Return how many attempts ended without progress; the running one may have failed too."""
        return self._attempts - (0 if self._attempt_failed else 1)

    def _gave_up(self) -> bool:
        return self._is_final or 0 <= self._max_failures < self._failures()

    def _note_failure(self, error: str) -> None:
        self._clock.clear()
        if not self._attempt_failed:
            self._attempt_failed = True
            self._last_error = error

    def _verdict(self) -> LearnerFailedError:
        if self._is_final:
            verb = "start" if self._restored is None else "go on"
            kind = LearnerLostError if self._is_lost else LearnerFailedError
            return kind(f"the learner cannot {verb}: {self._last_error}")
        return LearnerLostError(
            f"the learner failed {self._failures()} times in a row; "
            f"the last time: {self._last_error}"
        )

    def _watch(self) -> None:
        """Look at the ranks from now on, again and again."""
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._look_again())

    async def _look_again(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            try:
                await self.look()
            except Exception:
                logger.exception("looking after the learner's ranks failed, trying again")


async def _lives(process: Any) -> bool:
    """Tell whether a rank's process is there, even if it hangs."""
    if process is None:
        return True
    try:
        await asyncio.wait_for(process.__ray_ready__.remote(), _ALIVE_S)
    except RayActorError:
        return False
    except TimeoutError:
        return True
    return True

"""A bounded queue in front of replicas, which get requests of one kind together."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from videorl.serving.errors import RequestError

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    result: asyncio.Future[Result]
    on_start: Callable[[], object]


class Dispatcher(Generic[Item, Result]):
    """Hands items to replicas, the oldest first, with those of its group that wait behind it.

    Belongs to one event loop.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        group: Callable[[Item], Any],
        *,
        replicas: int,
        batch_size: int,
        max_queued: int,
        what: str,
    ) -> None:
        """Begin with an empty queue.

        Args:
            work: Does a batch; returns a result per item, in order.
            group: Items may share a batch if theirs are equal.
            replicas: Batches in work at once, at the most.
            batch_size: Items of a batch, at the most.
            max_queued: Items that wait, at the most.
            what: Is waited for, in the refusal.
        """
        self._work, self._group, self._what = work, group, what
        self._replicas, self._batch_size, self._max_queued = replicas, batch_size, max_queued
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._batches: set[asyncio.Task[None]] = set()
        self._seconds = 1.0
        """Of an item, as a running mean."""

    @property
    def num_queued(self) -> int:
        """The items that wait."""
        return len(self._queue)

    def check_room(self) -> None:
        """See that one more item may wait, before work is spent on it.

        Raises:
            RequestError: With status 429 and when to come again.
        """
        if len(self._queue) < self._max_queued:
            return
        waits_s = self._seconds * len(self._queue) / self._replicas
        raise RequestError(
            f"{len(self._queue)} requests wait for {self._what} already, the most that may: try "
            "again later, or start the server with a larger --max-queued or --max-replicas",
            status=429,
            code="queue_full",
            retry_after_s=max(1, min(3600, math.ceil(waits_s))),
        )

    def submit(
        self, item: Item, on_start: Callable[[], object] = lambda: None
    ) -> asyncio.Future[Result]:
        """Return the future result of an item; who cancels it takes the item out of the queue.

        Args:
            item: What a replica gets.
            on_start: Is called once it is handed over.

        Raises:
            RequestError: See `check_room`.
        """
        self.check_room()
        waiting = _Waiting(item, asyncio.get_running_loop().create_future(), on_start)
        waiting.result.add_done_callback(lambda result: self._forget(waiting, result))
        self._queue.append(waiting)
        self._start()
        return waiting.result

    def _forget(self, waiting: _Waiting[Item, Result], result: asyncio.Future[Result]) -> None:
        if result.cancelled() and waiting in self._queue:
            self._queue.remove(waiting)

    def _start(self) -> None:
        while self._queue and len(self._batches) < self._replicas:
            batch = self._next()
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._batches.add(task)
            task.add_done_callback(self._done)

    def _next(self) -> list[_Waiting[Item, Result]]:
        group = self._group(self._queue[0].item)
        batch = [self._queue.popleft()]
        for waiting in [*self._queue]:
            if len(batch) >= self._batch_size:
                break
            if self._group(waiting.item) == group:
                self._queue.remove(waiting)
                batch.append(waiting)
        return batch

    def _done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._start()

    async def _run(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        started = time.monotonic()
        for waiting in batch:
            waiting.on_start()
        await self._finish(batch)
        seconds = (time.monotonic() - started) / len(batch)
        self._seconds += 0.2 * (seconds - self._seconds)

    async def _finish(self, batch: Sequence[_Waiting[Item, Result]]) -> None:
        """Set the results; if a batch fails, each item is tried alone, so that others go on."""
        try:
            results = await self._work([waiting.item for waiting in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} items")
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].result.done():
                    batch[0].result.set_exception(error)
                return
            for waiting in batch:
                if not waiting.result.done():  # nobody waits for the cancelled
                    await self._finish([waiting])
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.result.done():
                waiting.result.set_result(result)

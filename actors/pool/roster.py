"""The workers of a pool, by state."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

from actors.pool.state import State, Worker


class Roster:
    """Workers by state; within a state, in the order in which they entered it.

    A dispatcher looks at its whole pool after every message. Sorted like this, its questions take
    the same time for a thousand workers as for ten.
    """

    def __init__(self, workers: Iterable[Worker] = ()) -> None:
        self._filed: dict[State, dict[int, Worker]] = {
            "pending": {},
            "starting": {},
            "idle": {},
            "busy": {},
        }
        for worker in workers:
            self._filed[worker.state][worker.number] = worker

    def add(self, worker: Worker) -> None:
        """Add a new worker."""
        self._filed[worker.state][worker.number] = worker

    def move(self, worker: Worker, state: State) -> None:
        """Let a worker enter a state; `gone` removes it."""
        del self._filed[worker.state][worker.number]
        worker.become(state)
        if state != "gone":
            self.add(worker)

    def having(self, state: State) -> Iterable[Worker]:
        """Return the workers in a state, the longest in it first."""
        return self._filed[state].values()

    def count(self, state: State) -> int:
        """Return how many workers are in a state."""
        return len(self._filed[state])

    def oldest(self, state: State) -> Worker | None:
        """Return the worker that has been in a state for longest, if there is any."""
        return next(iter(self.having(state)), None)

    def last_used(self, avoid: int | None) -> Worker | None:
        """Return the worker that became idle last, if possible not number `avoid`.

        The others may then idle for long enough to be released.
        """
        newest = list(itertools.islice(reversed(self._filed["idle"].values()), 2))
        others = [worker for worker in newest if worker.number != avoid]
        return next(iter(others or newest), None)

    def __contains__(self, worker: Worker) -> bool:
        """Tell whether a worker is in the pool."""
        return worker.state != "gone" and worker.number in self._filed[worker.state]

    def __iter__(self) -> Iterator[Worker]:
        """Iterate over all workers."""
        return itertools.chain.from_iterable(map(self.having, self._filed))

    def __len__(self) -> int:
        """Return the number of workers."""
        return sum(map(len, self._filed.values()))

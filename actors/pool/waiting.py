"""The requests of a pool that no worker has: those that training waits for go first."""

from __future__ import annotations

from collections import deque

from actors.pool.state import Lease


class Waiting:
    """Two queues in one. Any thread may append; only the pool's thread takes and gives back."""

    def __init__(self) -> None:
        self._first: deque[Lease] = deque()
        self._behind: deque[Lease] = deque()

    def __len__(self) -> int:
        """Return how many requests wait."""
        return len(self._first) + len(self._behind)

    @property
    def head(self) -> Lease:
        """Return the next request; there must be one."""
        return (self._first or self._behind)[0]

    def append(self, lease: Lease) -> None:
        """Queue a request as the last of its kind."""
        self._queue_of(lease).append(lease)

    def give_back(self, lease: Lease) -> None:
        """Queue a request that was lost as the first of its kind."""
        self._queue_of(lease).appendleft(lease)

    def take(self, lease: Lease) -> None:
        """Remove a request that was the head: meanwhile another may have come before it."""
        taken = self._queue_of(lease).popleft()
        assert taken is lease, "only one thread takes"

    def _queue_of(self, lease: Lease) -> deque[Lease]:
        return self._behind if lease.is_behind else self._first

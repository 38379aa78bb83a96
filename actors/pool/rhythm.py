"""How many workers the next burst of requests will need, by those that came before."""

from __future__ import annotations

from collections import deque

_GAPS, _LONGER = 16, 2.0
"""Pauses that are remembered; the next may be so many times as long as the longest of them."""
_PAUSE_S = 1.0
"""Requests that come within so many seconds are of one burst."""


class Rhythm:
    """Remembers the demand of the last bursts, and how long the pauses between them are.

    Requests come in rounds: while the learner works there are few, and soon there are as many as
    before. Workers that were released meanwhile would have to load their model again.
    """

    def __init__(self) -> None:
        self._last = 0
        self._rose: float | None = None
        self._gaps: deque[float] = deque(maxlen=_GAPS)
        self._seen: deque[tuple[float, int]] = deque()
        """Until when there was a demand, and how much; what is followed by more is left out."""

    def note(self, demand: int, now: float) -> None:
        """Note how many workers could work now, at a monotonic time in seconds."""
        if demand > self._last:
            if self._rose is not None and (gap := now - self._rose) >= _PAUSE_S:
                self._gaps.append(gap)
            self._rose = now
        if self._last > demand:
            self._seen.append((now, self._last))
        while self._seen and self._seen[-1][1] <= demand:
            self._seen.pop()
        self._last = demand

    def needed(self, least_s: float, now: float) -> int:
        """Return the largest demand of late: of `least_s`, or for longer than the usual pause."""
        window_s = max([least_s, *(_LONGER * gap for gap in self._gaps)])
        while self._seen and now - self._seen[0][0] > window_s:
            self._seen.popleft()
        return max([self._last, *(demand for _, demand in self._seen)])

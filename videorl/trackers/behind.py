"""A tracker that works behind the run: on a thread of its own, with a bounded queue."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from videorl.files import write_json
from videorl.trackers.tracker import FixedVideo, Tracker

logger = logging.getLogger(__name__)

_MOST_WAITING = 256
"""Entries of the queue; more are lost, and counted."""
_AGAIN_S = 60.0
"""Pause after a tracker could not be opened."""
_PATIENCE_S = 30.0
"""At the end of a run a tracker is waited for so long."""

_Call = Callable[[Tracker], None]


class Behind:
    """Hands everything on to a tracker; whatever that does, the run neither ends nor waits.

    What the tracker cannot take is lost: counted, and logged the first, second, fourth, eighth …
    time. A tracker that cannot be opened is tried again a minute later.

    Args:
        name: Of the tracker, for messages.
        opened: Opens it; called on the thread.
        settings: The recipe by dotted key, that the tracker is given when it is open.
        sent: A file that remembers which steps were handed on, so that a run that does steps again
            does not tell them twice; None = the tracker hides what is told again by itself.
        most_waiting: Entries that may wait.
        patience_s: Seconds that `close` waits for the last of them.
    """

    def __init__(
        self,
        name: str,
        opened: Callable[[], Tracker],
        settings: Mapping[str, Any],
        sent: Path | None = None,
        most_waiting: int = _MOST_WAITING,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self.name = name
        self._opened, self._settings = opened, settings
        self._sent = Sent(sent)
        self._most_waiting, self._patience_s = most_waiting, patience_s
        self._waiting: deque[_Call] = deque()
        self._change = threading.Condition()
        self._is_closing, self._num_lost = False, 0
        self._tracker: Tracker | None = None
        self._try_again, self._closes_at = 0.0, 0.0
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    @property
    def num_lost(self) -> int:
        """How many entries (steps, sets of videos, the summary) were lost so far."""
        return self._num_lost

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue the numbers of a step, unless the tracker has had them."""
        self._put(lambda tracker: self._sent.once("metrics", step, tracker.metrics, dict(metrics)))

    def videos(self, step: int, videos: Sequence[FixedVideo]) -> None:
        """Queue the videos of the fixed prompts, unless the tracker has had them."""
        self._put(lambda tracker: self._sent.once("videos", step, tracker.videos, tuple(videos)))

    def summary(self, facts: Mapping[str, Any]) -> None:
        """Queue the results."""
        self._put(lambda tracker: tracker.summary(facts))

    def truncate(self, step: int) -> None:
        """Queue that the run goes on from `step`."""
        self._put(lambda tracker: tracker.truncate(step))

    def begin_close(self) -> None:
        """Say that nothing follows; `close` waits from now on, also for several at a time."""
        with self._change:
            if not self._is_closing:
                self._is_closing = True
                self._closes_at = time.monotonic() + self._patience_s
                self._change.notify()

    def close(self) -> None:
        """Wait until all is handed on, but not for ever."""
        self.begin_close()
        self._thread.join(max(0.0, self._closes_at - time.monotonic()))
        if self._thread.is_alive():
            logger.warning(
                "%s has not taken the last %d entries within %.0f s; they are not waited for",
                self.name,
                len(self._waiting) + 1,
                self._patience_s,
            )
        elif self._num_lost:
            logger.warning("%s lacks %d entries of this run", self.name, self._num_lost)

    def _put(self, call: _Call) -> None:
        with self._change:
            if len(self._waiting) < self._most_waiting:
                self._waiting.append(call)
                self._change.notify()
                return
        self._lose(f"it is slower than the run, and {self._most_waiting} entries wait")

    def _work(self) -> None:
        while (call := self._next()) is not None:
            self._guarded(lambda call=call: self._hand_on(call))
        if (tracker := self._tracker) is not None:
            self._guarded(tracker.close)

    def _next(self) -> _Call | None:
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._is_closing)
            return self._waiting.popleft() if self._waiting else None

    def _hand_on(self, call: _Call) -> None:
        if self._tracker is None:
            if time.monotonic() < self._try_again:
                self._count()
                return
            # Before opening, which may take long and then fail.
            self._try_again = float("inf")
            try:
                tracker = self._opened()
                tracker.config(self._settings)
                self._tracker = tracker
            finally:
                self._try_again = time.monotonic() + _AGAIN_S
        call(self._tracker)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except BaseException as error:  # an exit too would end the thread unseen
            self._lose(f"{type(error).__name__}: {error}")

    def _count(self) -> int:
        with self._change:
            self._num_lost += 1
            return self._num_lost

    def _lose(self, reason: str) -> None:
        lost = self._count()
        if lost & (lost - 1) == 0:
            logger.warning(
                "%s did not take an entry, %d so far; the run goes on: %s",
                self.name,
                lost,
                reason.splitlines()[0],
            )


class Sent:
    """Remembers, across resumes, up to which step each kind of entry was handed on.

    Args:
        path: Where; None = nothing is remembered, and all is handed on.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._next: dict[str, int] = _read(path) if path is not None and path.exists() else {}

    def once(self, kind: str, step: int, hand_on: Callable[[int, Any], None], value: Any) -> None:
        """Hand on an entry of a step, unless that or a later step was before."""
        if self._path is None:
            hand_on(step, value)
        elif step >= self._next.get(kind, 0):
            hand_on(step, value)
            self._next[kind] = step + 1
            write_json(self._path, self._next)


def _read(path: Path) -> dict[str, int]:
    try:
        return {str(kind): int(step) for kind, step in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        logger.warning("%s cannot be read (%s): steps may be told twice", path, error)
        return {}

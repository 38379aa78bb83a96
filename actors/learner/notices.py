"""Notices that the learner's nodes will leave: from Ray, clouds and people alike."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Protocol

from actors.pool.outcomes import first_line
from actors.seats.booking import draining_nodes
from videorl.errors import VideorlError

logger = logging.getLogger(__name__)

_LOOK_S, _REPORT_S = 0.5, 30.0


class _Placed(Protocol):
    def nodes(self) -> frozenset[str]:
        """Return the ids of the nodes that ranks are on."""
        ...


class Notices:
    """Says once of each notice that a node of the learner's will leave.

    Ray lists such nodes as draining, whoever told it: `ray drain-node`, or an autoscaler that was
    told by its cloud.

    Args:
        learner: Knows its nodes.
        draining: Returns the ids of nodes that will leave.
    """

    def __init__(
        self, learner: _Placed, draining: Callable[[], frozenset[str]] = draining_nodes
    ) -> None:
        self._learner = learner
        self._draining = draining
        self._told: frozenset[str] = frozenset()
        self._looked = self._failed = -math.inf

    def __call__(self) -> bool:
        """Tell whether there is a new notice since the last call; may be asked all the time.

        A learner that comes to a node which is about to leave already is news too.
        """
        if (now := time.monotonic()) - self._looked < _LOOK_S:
            return False
        self._looked = now
        try:
            leaving = self._draining()
            hit = leaving & self._learner.nodes() if leaving else leaving
        except VideorlError:
            raise
        except Exception as error:  # Ray's head is away: a notice may be late, the run goes on
            self._say(error, now)
            return False
        new, self._told = hit - self._told, hit | (self._told & leaving)
        if new:
            logger.warning("a node of the learner will leave: a checkpoint is written now")
        return bool(new)

    def _say(self, error: Exception, now: float) -> None:
        if now - self._failed >= _REPORT_S:
            self._failed = now
            logger.warning("Ray does not tell which nodes will leave: %s", first_line(error))

"""Notices that the learner's nodes will leave: from Ray, clouds and people alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from actors.seats.booking import draining_nodes

logger = logging.getLogger(__name__)

_LOOK_S = 0.5


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
        self._known: frozenset[str] = frozenset()
        self._looked = -_LOOK_S

    def __call__(self) -> bool:
        """Tell whether there is a new notice since the last call; may be asked all the time."""
        if (now := time.monotonic()) - self._looked < _LOOK_S:
            return False
        self._looked = now
        leaving = self._draining()
        new, self._known = leaving - self._known, leaving
        if not new or not new & self._learner.nodes():
            return False
        logger.warning("a node of the learner will leave: a checkpoint is written now")
        return True

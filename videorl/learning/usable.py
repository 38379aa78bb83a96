"""Examples that cannot be learned from: the next take their places."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from videorl.errors import DamagedPairError, PromptError

E = TypeVar("E")
logger = logging.getLogger(__name__)


class Usable(Generic[E]):
    """Makes examples of a sequence, and counts those that cannot be made.

    Args:
        make: Index -> example; raises PromptError or DamagedPairError for one that cannot be used.
    """

    def __init__(self, make: Callable[[int], E]) -> None:
        self._make = make
        self._logged: set[str] = set()
        self.num_skipped = 0
        """How many could not be made so far; each counts whenever it comes up again."""

    def first(self, indices: Iterable[int]) -> E:
        """Return the example of the first index that can be used; the log names the others once.

        Raises:
            PromptError: None of them can be used.
        """
        error: Exception = PromptError("there is nothing to learn from")
        for index in indices:
            try:
                return self._make(index)
            except (PromptError, DamagedPairError) as problem:
                error = problem
                self.num_skipped += 1
                if str(error) not in self._logged:
                    logger.warning("left out, the next takes its place: %s", error)
                    self._logged.add(str(error))
        raise PromptError(
            f"nothing is left to learn from; the last problem was: {error}"
        ) from error

"""Requests cut into parts, so that several generators sample the candidates of one prompt."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from videorl.errors import MediaLostError, WorkLostError
from videorl.futures import completed, gathered, mapped, recovered
from videorl.types import CandidateGroup, SampleRequest

if TYPE_CHECKING:
    from videorl.protocols import Generator  # imports torch, which the audit can spare

logger = logging.getLogger(__name__)

PART_LOST = "request_lost"
"""Reason of candidates whose part failed on every worker, while others of the group came."""


class InParts:
    """Implements `videorl.protocols.Generator`: requests go on in parts, and groups come whole.

    A candidate has the index and the seed that it has without parts, and the same order.

    Args:
        inner: Samples each part.
        size: Most candidates of a part; 0 = requests go on as they are.
    """

    def __init__(self, inner: Generator, size: int) -> None:
        self._inner = inner
        self._size = size

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        """Queue all parts; the group is there when the last of them is.

        Candidates of a part that is lost are counted in `dropped`. The future fails where all parts
        are lost, or one fails for another reason: its prompt is refused, or its media are gone.
        """
        parts, errors = cut(request, self._size), list[WorkLostError]()
        if len(parts) == 1:
            return self._inner.submit(request)

        def counted(part: SampleRequest, error: Exception) -> Future[CandidateGroup]:
            if not isinstance(error, WorkLostError) or isinstance(error, MediaLostError):
                raise error
            errors.append(error)
            seeds, index = len(part.seeds), request.prompt.index
            logger.warning("%d candidates of prompt %d are dropped: %s", seeds, index, error)
            lost = CandidateGroup(part.prompt, None, (), {PART_LOST: seeds})
            return completed(lambda: lost)

        def whole(groups: list[CandidateGroup]) -> CandidateGroup:
            if len(errors) == len(parts):
                raise errors[0]
            return joined(groups)

        sampled = [recovered(self._inner.submit(part), partial(counted, part)) for part in parts]
        return mapped(gathered(sampled), whole)


def cut(request: SampleRequest, size: int) -> list[SampleRequest]:
    """Return the parts of a request, of `size` seeds and a last one of the rest; 0 = one part."""
    seeds, size = request.seeds, size or len(request.seeds)
    return [
        replace(request, seeds=seeds[start : start + size], first=request.first + start)
        for start in range(0, len(seeds), size)
    ]


def joined(groups: Sequence[CandidateGroup]) -> CandidateGroup:
    """Make one group of the parts of a request, in their order; at least one is not lost."""
    dropped = sum((Counter(group.dropped) for group in groups), Counter[str]())
    candidates = tuple(candidate for group in groups for candidate in group.candidates)
    sampled = next(group for group in groups if PART_LOST not in group.dropped)
    return replace(sampled, candidates=candidates, dropped=dict(dropped))

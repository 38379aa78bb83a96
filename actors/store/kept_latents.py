"""Latents that will be learned from, out of reach of the nodes that may leave."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import ray

from actors.placement import beside_driver
from actors.pool.outcomes import as_own_error
from videorl.futures import recovered, then
from videorl.protocols import Scorer, SelectionRule
from videorl.types import CandidateGroup, Media, ScoredGroup


class KeepingScorer:
    """Scores groups, and copies what will be learned from to the driver's node.

    Generators come and go; what they sampled is needed until the learner has a checkpoint of what
    it learned. A node that is lost before the copy is made costs a resampled group
    (`videorl.rollouts.chain`); one that is lost later costs nothing. The driver holds only handles.

    Args:
        scorer: What scores.
        select: Which candidates of a group will be learned from; only their latents are copied.
    """

    def __init__(self, scorer: Scorer, select: SelectionRule) -> None:
        self.inner = scorer
        self._select = select
        self._several = False
        self._copy: Any = ray.remote(_copy)
        self._options = {**beside_driver(), "max_retries": 3}

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Score one group; its future also fails with `MediaLostError` if media are gone."""
        return then(self.inner.submit(group), self._kept)

    def _kept(self, group: ScoredGroup) -> Future[ScoredGroup]:
        """Return the group with handles of copies, once they are made."""
        learned = [one for example in self._select(group) for one in example.candidates]
        done: Future[ScoredGroup] = Future()
        if not learned or not self._has_others():
            done.set_result(group)
            return done
        latents = dict.fromkeys(one.candidate.latents for one in learned)
        media = [group.prompt_embeds, *latents]
        # The first result says that all others are made: they are never opened here.
        made, *copies = self._copy.options(**self._options, num_returns=1 + len(media)).remote(
            *media
        )
        copy_of: dict[Media, Media] = dict(zip(media, copies, strict=True))

        def failed(error: Exception) -> Future[Any]:
            raise as_own_error(error)

        def replaced(_: Any) -> Future[ScoredGroup]:
            done.set_result(with_copies(group, copy_of))
            return done

        return then(recovered(made.future(), failed), replaced)

    def _has_others(self) -> bool:
        """Return whether there ever was a node beside the driver's; dead ones count too."""
        self._several = self._several or len(ray.nodes()) > 1
        return self._several


def with_copies(group: ScoredGroup, copy_of: dict[Media, Media]) -> ScoredGroup:
    """Return a group whose media are replaced by their copies, where there are any."""
    candidates = tuple(
        replace(one, candidate=replace(one.candidate, latents=copy_of[one.candidate.latents]))
        if one.candidate.latents in copy_of
        else one
        for one in group.candidates
    )
    embeds = copy_of.get(group.prompt_embeds, group.prompt_embeds)
    return replace(group, candidates=candidates, prompt_embeds=embeds)


def _copy(*media: Any) -> tuple[Any, ...]:
    return True, *media

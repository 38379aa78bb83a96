"""Latents that will be learned from, copied to the driver's node, which does not leave."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import ray

from actors.placement import beside_driver
from actors.pool.outcomes import as_own_error
from videorl.futures import completed, mapped, recovered, then
from videorl.protocols import Scorer, SelectionRule
from videorl.types import CandidateGroup, Media, ScoredGroup


class KeepingScorer:
    """Scores groups, and copies what will be learned from to the driver's node.

    Generators come and go; what they sampled is needed until a checkpoint covers what was learned
    from it. If a node is lost before the copy is made, its groups are sampled again
    (`videorl.rollouts.chain`); after that, its loss costs nothing. The driver holds only handles.

    Args:
        scorer: Scores the groups.
        select: Which candidates of a group will be learned from; only their latents are copied.
    """

    def __init__(self, scorer: Scorer, select: SelectionRule) -> None:
        self.inner = scorer
        self._select = select
        self._several = False
        self._copy: Any = ray.remote(_copy)
        self._options = {**beside_driver(), "max_retries": 3}

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Score one group; the future also fails with `MediaLostError` if media are gone."""
        return then(self.inner.submit(group), self._kept)

    def _kept(self, group: ScoredGroup) -> Future[ScoredGroup]:
        """Return the group with handles of copies, once they are made."""
        learned = [scored for example in self._select(group) for scored in example.candidates]
        if not learned or not self._has_others():
            return completed(lambda: group)
        # Each once: several pairs may share a candidate.
        latents = dict.fromkeys(scored.candidate.latents for scored in learned)
        media = [group.prompt_embeds, *latents]
        # The first result says that the copies are made; they are never opened here.
        made, *copies = self._copy.options(**self._options, num_returns=1 + len(media)).remote(
            *media
        )
        copy_of: dict[Media, Media] = dict(zip(media, copies, strict=True))

        def failed(error: Exception) -> Future[Any]:
            raise as_own_error(error)

        return mapped(recovered(made.future(), failed), lambda _: with_copies(group, copy_of))

    def _has_others(self) -> bool:
        """Return whether there ever was a node beside the driver's; dead nodes count too."""
        self._several = self._several or len(ray.nodes()) > 1
        return self._several


def with_copies(group: ScoredGroup, copy_of: dict[Media, Media]) -> ScoredGroup:
    """Return a group whose media are replaced by their copies, where there are any."""
    candidates = tuple(
        replace(scored, candidate=replace(scored.candidate, latents=copy))
        if (copy := copy_of.get(scored.candidate.latents)) is not None
        else scored
        for scored in group.candidates
    )
    embeds = copy_of.get(group.prompt_embeds, group.prompt_embeds)
    return replace(group, candidates=candidates, prompt_embeds=embeds)


def _copy(*media: Any) -> tuple[Any, ...]:
    return True, *media

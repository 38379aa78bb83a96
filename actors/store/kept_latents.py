"""Latents that will be learned from, copied to nodes that do not leave."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ObjectFetchTimedOutError, ObjectLostError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from actors.naming import named, shown_by_name
from actors.placement import start_actor
from actors.pool.outcomes import as_own_error, cause_of, first_line
from actors.store.handles import changed_group
from videorl.errors import PoolLostError, ResourceError, WorkLostError
from videorl.futures import completed, mapped, recovered, then
from videorl.protocols import Scorer, SelectionRule
from videorl.types import Candidate, CandidateGroup, Media, ScoredGroup

logger = logging.getLogger(__name__)

_AT_ONCE = 4
"""Groups that a keeper copies at once; others wait."""
_FETCH_S = 300.0
_TRIES, _LONGEST_PAUSE_S = 12, 120.0
"""Pauses are 1, 2, 4, … s: together about ten minutes."""


@shown_by_name
class LatentKeeper:
    """Copies objects to its node, as bytes: it imports no torch."""

    def keep(self, refs: list[ObjectRef]) -> tuple[Any, ...]:
        """Return True, and then the objects, which are copied by being returned."""
        return True, *ray.get(refs, timeout=_FETCH_S)


class Keepers:
    """A `LatentKeeper` on each node that keeps latents, and whose turn it is.

    Args:
        resource: The custom resource of these nodes; empty = the driver's node alone.
        run: Name of the run, for `actors.naming.named`.
        pause_s: The first pause after a copy failed; each is twice as long as the one before.
    """

    def __init__(self, resource: str = "", run: str = "", pause_s: float = 1.0) -> None:
        self._resource = resource
        self._run = run
        self._pause_s = pause_s
        self._keepers: dict[str, ActorHandle] = {}
        self._turn = 0
        self._several = self._is_closed = False
        # Groups are scored on threads of several pools.
        self._lock = threading.Lock()

    def check(self) -> None:
        """Check that there is a node now.

        Raises:
            ResourceError: No node has the resource.
        """
        if not self._nodes():
            raise ResourceError(
                f"cluster.keep_latents_on={self._resource}: no node of the cluster has this custom "
                "resource; start nodes that stay with it, as in ray start "
                f"--resources='{{\"{self._resource}\": 1}}', or leave the setting empty to keep "
                "latents on the driver's node"
            )

    def are_needed(self) -> bool:
        """Return whether there ever was a node beside the driver's; dead nodes count too."""
        self._several = self._several or len(ray.nodes()) > 1
        return self._several

    def copies(self, media: Sequence[ObjectRef], num_failed: int = 0) -> Future[list[ObjectRef]]:
        """Return the handles of copies, as soon as these are made.

        A node that is full, slow or gone is no reason to sample again: another copies, or the same
        after a pause.

        The future fails with `MediaLostError` if an object is gone with its node, and with
        `PoolLostError` if no node could copy for minutes.
        """

        def failed(error: Exception) -> Future[list[ObjectRef]]:
            cause = cause_of(error)
            if self._is_closed:
                raise WorkLostError("latents are not copied any more: the run ends") from error
            if isinstance(cause, ObjectLostError) and not isinstance(
                cause, ObjectFetchTimedOutError
            ):
                raise as_own_error(error) from error
            if num_failed + 1 >= _TRIES:
                raise PoolLostError(
                    f"latents could not be copied to a node that stays, {_TRIES} times in a row; "
                    f"the last time: {first_line(error)}. If its memory or object store is full, "
                    "give it more, or name more nodes by cluster.keep_latents_on"
                ) from error
            logger.warning("latents are not copied yet, trying again: %s", first_line(error))
            pause = _paused(min(_LONGEST_PAUSE_S, self._pause_s * 2**num_failed))
            return then(pause, lambda _: self.copies(media, num_failed + 1))

        return recovered(then(completed(self._next), lambda one: _copied(one, media)), failed)

    def started(self) -> list[ActorHandle]:
        """Return the keepers that there are so far."""
        return list(self._keepers.values())

    def close(self) -> None:
        """Stop the keepers; their copies stay."""
        self._is_closed = True
        for keeper in self.started():
            ray.kill(keeper, no_restart=True)

    def _next(self) -> ActorHandle:
        with self._lock:
            if not (nodes := self._nodes()):
                raise RuntimeError(f"no node with {self._resource} is alive")
            node = nodes[self._turn % len(nodes)]
            self._turn += 1
            if node not in self._keepers:
                self._keepers[node] = self._started(node)
            return self._keepers[node]

    def _nodes(self) -> list[str]:
        if not self._resource:
            return [ray.get_runtime_context().get_node_id()]
        return sorted(
            node["NodeID"]
            for node in ray.nodes()
            if node["Alive"] and node["Resources"].get(self._resource, 0) > 0
        )

    def _started(self, node: str) -> ActorHandle:
        options = {
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
            "max_concurrency": _AT_ONCE,
            "max_restarts": -1,
        }
        role = f"latents-{len(self._keepers)}"
        return start_actor(LatentKeeper, named(options, self._run, role))


class KeepingScorer:
    """Scores groups, and copies what will be learned from to nodes that do not leave.

    Generators come and go; what they sampled is needed until a checkpoint covers what was learned
    from it. If a node is lost before the copy is made, its groups are sampled again
    (`videorl.rollouts.chain`); after that, its loss costs nothing. The driver holds only handles.

    Args:
        scorer: Scores the groups.
        select: Which candidates of a group will be learned from; only their latents are copied.
        keepers: Copy; None = one on the driver's node.
    """

    def __init__(
        self, scorer: Scorer, select: SelectionRule, keepers: Keepers | None = None
    ) -> None:
        self.inner = scorer
        self._select = select
        self._keepers = keepers or Keepers()

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Score one group; the future also fails as that of `Keepers.copies`."""
        return then(self.inner.submit(group), self._kept)

    def _kept(self, group: ScoredGroup) -> Future[ScoredGroup]:
        """Return the group with handles of copies, once they are made."""
        learned = [scored for example in self._select(group) for scored in example.candidates]
        if not learned or not self._keepers.are_needed():
            return completed(lambda: group)
        # Each once: several pairs may share a candidate.
        latents = dict.fromkeys(scored.candidate.latents for scored in learned)
        media = [group.prompt_embeds, *latents]
        return mapped(
            self._keepers.copies(media),
            lambda copies: with_copies(group, dict(zip(media, copies, strict=True))),
        )


def with_copies(group: ScoredGroup, copy_of: dict[Media, Media]) -> ScoredGroup:
    """Return a group whose media are replaced by their copies, where there are any."""

    def copied(candidate: Candidate) -> Candidate:
        return replace(candidate, latents=copy_of.get(candidate.latents, candidate.latents))

    embeds = copy_of.get(group.prompt_embeds, group.prompt_embeds)
    return replace(changed_group(group, copied), prompt_embeds=embeds)


def _copied(keeper: ActorHandle, media: Sequence[ObjectRef]) -> Future[list[ObjectRef]]:
    # The first result says that the copies are made; they are never opened here.
    refs: Any = keeper.keep.options(num_returns=1 + len(media)).remote(list(media))
    made, *copies = refs
    return mapped(made.future(), lambda _: copies)


def _paused(seconds: float) -> Future[None]:
    """Return a future that is done after a time; nobody waits meanwhile."""
    pause: Future[None] = Future()
    timer = threading.Timer(seconds, lambda: pause.set_result(None))
    timer.daemon = True
    timer.start()
    return pause

"""Sampling and scoring ahead of the learner, paced by `max_staleness`.

Round r feeds optimizer step r. It is admitted as soon as version r - max_staleness is published
and is sampled with exactly that version (with version 0 before that). So staleness is bounded
by *when prompts enter*, never by throwing slow results away, which would favour prompts that are
quick to sample; and what is sampled does not depend on how fast anything ran.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from videorl.config import Recipe
from videorl.data.prompts import Prompts
from videorl.errors import MediaLostError, PromptError, WorkLostError
from videorl.futures import completed, recovered, then
from videorl.sampling.parts import InParts
from videorl.seeds import derive_seed
from videorl.types import (
    Prompt,
    PromptOutcome,
    SampleRequest,
    ScoredGroup,
    WeightVersion,
)

if TYPE_CHECKING:
    from videorl.protocols import Generator, Scorer  # imports torch, which the audit can spare

logger = logging.getLogger(__name__)

_ASK_S = 0.2
"""A run that waits for a round is asked so often whether it shall stop."""
_MAX_RESAMPLED = 3
"""Times that a group is sampled again because its media were lost before they were scored."""


@dataclass(frozen=True, slots=True)
class Round:
    """The scored groups of a round in prompt order, and the prompts that gave none."""

    groups: tuple[ScoredGroup, ...]
    lost: tuple[PromptOutcome, ...]
    """The prompts whose groups were lost as a whole, and why."""
    version: WeightVersion
    """The version that sampled it."""
    wait_s: float
    """Seconds that the learner waited for this round."""


def chain(
    request: SampleRequest, generator: Generator, scorer: Scorer, num_left: int = _MAX_RESAMPLED
) -> Future[ScoredGroup]:
    """Sample a group, then score it; the result fails if either part does.

    Media that are lost in between, with the node that held them, are sampled again, up to
    `num_left` times: the same request gives the same group.
    """

    def resampled(error: Exception) -> Future[ScoredGroup]:
        if not num_left or not isinstance(error, MediaLostError):
            raise error
        logger.warning(
            "round %d: prompt %d is sampled again: %s", request.round, request.prompt.index, error
        )
        return chain(request, generator, scorer, num_left - 1)

    sampled = then(completed(lambda: request), generator.submit)
    return recovered(then(sampled, scorer.submit), resampled)


def request_for(
    recipe: Recipe, prompts: Prompts, position: int, version: WeightVersion
) -> SampleRequest:
    """Return the request for a position of the prompt stream; the same on every retry."""
    prompt = prompts[position]
    seeds = tuple(
        derive_seed(recipe.seed, "candidate", prompt.index, index)
        for index in range(recipe.prompts.candidates_per_prompt)
    )
    return SampleRequest(position // recipe.prompts.per_round, prompt, seeds, version)


_Chained: TypeAlias = tuple[Prompt, Future[ScoredGroup]]


class Rollouts:
    """Rounds in flight. `first_round` is the first that has not been learned from yet."""

    def __init__(
        self,
        recipe: Recipe,
        prompts: Prompts,
        generator: Generator,
        scorer: Scorer,
        first_round: int,
    ) -> None:
        self._recipe = recipe
        self._prompts = prompts
        self._generator = InParts(generator, recipe.candidates_per_request())
        self._scorer = scorer
        self._next_round = first_round
        self._in_flight: dict[int, tuple[WeightVersion, list[_Chained]]] = {}
        self._waited_s = 0.0

    def admit(self, versions: Iterable[WeightVersion]) -> None:
        """Start every round whose sampling version is among `versions`, up to the last round."""
        by_step = {version.step: version for version in versions}
        staleness = self._recipe.rollouts.max_staleness
        while self._next_round < self._recipe.num_steps:
            version = by_step.get(max(0, self._next_round - staleness))
            if version is None:
                return
            self._start(self._next_round, version)
            self._next_round += 1

    def wait(self, number: int, should_stop: Callable[[], bool]) -> bool:
        """Return when round `number` can be taken; False if `should_stop` said so first.

        It is asked several times a second.
        """
        started = time.perf_counter()
        futures = [future for _, future in self._in_flight[number][1]]
        while is_waiting := bool(wait(futures, timeout=_ASK_S).not_done):
            if should_stop():
                break
        self._waited_s = time.perf_counter() - started
        return not is_waiting

    def take(self, number: int) -> Round:
        """Wait for round `number` and return what became of it.

        Raises:
            PoolFailedError: No worker of a pool can start, so every group would be lost.
            ConfigError: A worker found that the recipe makes no sense.
        """
        version, futures = self._in_flight.pop(number)
        started = time.perf_counter() - self._waited_s
        self._waited_s = 0.0
        groups: list[ScoredGroup] = []
        lost: list[PromptOutcome] = []
        for prompt, future in futures:
            try:
                groups.append(future.result())
            except (PromptError, WorkLostError) as error:
                reason = "prompt_rejected" if isinstance(error, PromptError) else "group_lost"
                lost.append(PromptOutcome(prompt, reason, str(error)))
                logger.warning(
                    "round %d: the group of prompt %d was dropped (%s): %s",
                    number,
                    prompt.index,
                    reason,
                    error,
                )
        return Round(tuple(groups), tuple(lost), version, time.perf_counter() - started)

    def _start(self, number: int, version: WeightVersion) -> None:
        per_round = self._recipe.prompts.per_round
        requests = [
            request_for(self._recipe, self._prompts, position, version)
            for position in range(number * per_round, (number + 1) * per_round)
        ]
        self._in_flight[number] = (
            version,
            [
                (request.prompt, chain(request, self._generator, self._scorer))
                for request in requests
            ],
        )

"""The loop as a discrete-event model: who works when, if each stage takes a known time.

It has what decides a run's pace: rounds enter as `max_staleness` admits them, requests of several
rounds queue for generators in order, each group goes to all reward pools at once, and a step begins
when the last group of its round is scored and the step before it is done. Ray's own work is not in
it; docs/planning.md compares both.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

GENERATOR = "generator"
LEARNER = "learner"
_MOST_EVENTS = 20_000
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True, slots=True)
class Stages:
    """How long each stage takes, and how many workers there are."""

    per_round: int
    """Prompts of a round."""
    staleness: int
    """`rollouts.max_staleness`."""
    generate_s: float
    """All candidates of a prompt, on one worker."""
    score_s: Mapping[str, float]
    """Reward -> seconds for the candidates of a prompt."""
    learn_s: float
    """One step, with all updates that it makes of its round."""
    generators: int
    scorers: Mapping[str, int]
    """Reward -> workers; the names of `score_s`."""
    spread: float = 0.1
    """Requests take (1 ± spread) × their share of `generate_s`, evenly spread."""
    parts: int = 1
    """Requests of a prompt; each has an equal share of the candidates."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What the model of the loop shows, without its first and last rounds."""

    step_s: float
    busy: Mapping[str, float]
    """Role -> share of the time that its workers work."""

    @property
    def bottleneck(self) -> str:
        """The role whose workers work most of the time."""
        return max(self.busy, key=lambda name: self.busy[name])


def simulate(stages: Stages, num_rounds: int = 0) -> Pace:
    """Run the model of the loop; return seconds per step and how busy each role is.

    Args:
        stages: Times and workers; at least one worker of each role.
        num_rounds: Rounds that are measured, after a warm-up; 0 = 40, or fewer large ones.
    """
    events = stages.per_round * (stages.parts + len(stages.score_s))
    measured = num_rounds or min(40, max(8, _MOST_EVENTS // events))
    warm_up = stages.staleness + 2
    # Beside the measured rounds, enough follow that sampling ahead goes on.
    ends = _Loop(stages, warm_up + measured + stages.staleness + 1).run()
    step_s = (ends[warm_up + measured - 1] - ends[warm_up - 1]) / measured
    work = {GENERATOR: stages.generate_s * stages.per_round / stages.generators}
    for name, count in stages.scorers.items():
        work[name] = stages.score_s[name] * stages.per_round / count
    work[LEARNER] = stages.learn_s
    return Pace(step_s, {name: seconds / step_s for name, seconds in work.items()})


class _Loop:
    """Events are (time, number, pool, place): a worker has finished a prompt, or a part of it."""

    def __init__(self, stages: Stages, num_rounds: int) -> None:
        self._stages = stages
        self._num_rounds = num_rounds
        self._now = 0.0
        self._events: list[tuple[float, int, str, int]] = []
        self._num_events = 0
        self._free = {GENERATOR: stages.generators, **stages.scorers, LEARNER: 1}
        self._queues = {name: deque[int]() for name in self._free}
        self._parts_left: dict[int, int] = {}
        self._left = [stages.per_round * max(1, len(stages.scorers)) for _ in range(num_rounds)]
        self._ends: list[float] = []
        self._next_round = self._num_complete = 0

    def run(self) -> list[float]:
        """Return when each step ends."""
        self._admit()
        while self._events:
            self._now, _, pool, place = heapq.heappop(self._events)
            self._free[pool] += 1
            self._finished(pool, place)
            self._start(pool)
        return self._ends

    def _admit(self) -> None:
        last = min(self._num_rounds, len(self._ends) + self._stages.staleness + 1)
        for number in range(self._next_round, last):
            first = number * self._stages.per_round
            for prompt in range(first, first + self._stages.per_round):
                self._parts_left[prompt] = parts = self._stages.parts
                for part in range(prompt * parts, (prompt + 1) * parts):
                    self._put(GENERATOR, part)
        self._next_round = last

    def _finished(self, pool: str, place: int) -> None:
        """Send on what a worker has finished: a prompt, a part of it, or the learner's step."""
        if pool == LEARNER:
            self._ends.append(self._now)
            self._admit()
            return
        if pool == GENERATOR:
            place //= self._stages.parts
            self._parts_left[place] -= 1
            if self._parts_left[place]:
                return
        if pool == GENERATOR and self._stages.scorers:
            for name in self._stages.scorers:
                self._put(name, place)
            return
        number = place // self._stages.per_round
        self._left[number] -= 1
        # Rounds are learned from in order, whichever is complete first.
        while self._num_complete < self._num_rounds and not self._left[self._num_complete]:
            self._num_complete += 1
            self._put(LEARNER, self._num_complete - 1)

    def _put(self, pool: str, place: int) -> None:
        self._queues[pool].append(place)
        self._start(pool)

    def _start(self, pool: str) -> None:
        queue = self._queues[pool]
        while queue and self._free[pool]:
            place = queue.popleft()
            self._free[pool] -= 1
            self._num_events += 1
            end = self._now + self._seconds(pool, place)
            heapq.heappush(self._events, (end, self._num_events, pool, place))

    def _seconds(self, pool: str, place: int) -> float:
        if pool == LEARNER:
            return self._stages.learn_s
        if pool != GENERATOR:
            return self._stages.score_s[pool]
        share = place * _GOLDEN % 1.0
        whole_s = self._stages.generate_s * (1 + self._stages.spread * (2 * share - 1))
        return whole_s / self._stages.parts

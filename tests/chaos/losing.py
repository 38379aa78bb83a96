"""`videorl train` that waits for a loss: `python -m tests.chaos.losing WHAT ROUND RECIPE …`."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, TypeVar

import ray
from ray.experimental import get_object_locations

import actors.online_run
from actors.store.kept_latents import KeepingScorer
from jobs.train import main
from tests.chaos.faults import DOOMED
from videorl.config import Recipe
from videorl.loop import Parts, Progress, train
from videorl.protocols import Generator, Scorer
from videorl.types import Candidate, CandidateGroup, SampleRequest, ScoredGroup

Group = TypeVar("Group", CandidateGroup, ScoredGroup)


class LosingVideos:
    """A generator of which one group arrives when the node that holds its videos is dead."""

    def __init__(self, inner: Generator, number: int) -> None:
        self._inner = inner
        self._number: int | None = number

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        sampled = self._inner.submit(request)
        if request.round != self._number:
            return sampled
        self._number = None
        return after_loss(sampled, lambda group: group.candidates[0])


class LosingLatents:
    """A scorer of which one group arrives when the node that holds its latents is dead.

    It stands before what would copy them to the driver's node.
    """

    def __init__(self, inner: Scorer, number: int) -> None:
        self._inner = inner
        self._number: int | None = number

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        scored = self._inner.submit(group)
        if group.candidates[0].round != self._number:
            return scored
        self._number = None
        return after_loss(scored, lambda one: one.candidates[0].candidate)


def after_loss(source: Future[Group], candidate_of: Callable[[Group], Candidate]) -> Future[Group]:
    """Return `source`'s result once the node with a candidate's media is gone."""
    result: Future[Group] = Future()

    def wait() -> None:
        try:
            group = source.result()
            media: Any = candidate_of(group).latents
            (node,) = get_object_locations([media])[media]["node_ids"]
            print(f"\n{DOOMED}{node}", flush=True)
            while any(one["Alive"] and one["NodeID"] == node for one in ray.nodes()):
                time.sleep(0.1)
            result.set_result(group)
        except Exception as error:  # belongs to whoever waits for the group
            result.set_exception(error)

    threading.Thread(target=wait, daemon=True).start()
    return result


def losing_train(what: str, number: int) -> Callable[..., Progress]:
    def run(recipe: Recipe, parts: Parts, *others: Any) -> Progress:
        if what == "video":
            losing = replace(parts, generator=LosingVideos(parts.generator, number))
        else:
            assert isinstance(parts.scorer, KeepingScorer)
            losing_scorer = LosingLatents(parts.scorer.inner, number)
            losing = replace(parts, scorer=KeepingScorer(losing_scorer, parts.select))
        return train(recipe, losing, *others)

    return run


if __name__ == "__main__":
    actors.online_run.train = losing_train(sys.argv[1], int(sys.argv[2]))
    sys.exit(main(sys.argv[3:]))

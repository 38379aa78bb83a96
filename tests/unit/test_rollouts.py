"""One group from request to scores, when its media are lost on the way."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import pytest

from tests.fakes import FakePolicy, FakeReward, published
from videorl.config import Recipe, RewardConfig
from videorl.data.prompts import PromptStream
from videorl.errors import MediaLostError, WorkLostError
from videorl.rollouts import Rollouts, chain
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import CandidateGroup, Prompt, SampleRequest, WeightVersion

REQUEST = SampleRequest(0, Prompt(0, "red"), (1, 2), WeightVersion(0, "0"))


@dataclass
class Stage:
    """Answers what it is told to, in order, and remembers what it was asked."""

    answers: list[Any]
    asked: list[Any] = field(default_factory=list[Any])

    def submit(self, work: Any) -> Future[Any]:
        self.asked.append(work)
        future: Future[Any] = Future()
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
        return future


def outcome(generator: Any, scorer: Any) -> Any:
    return chain(REQUEST, generator, scorer).result(0)


def test_a_group_whose_videos_are_lost_before_scoring_is_sampled_again() -> None:
    generator = Stage(["first", "second", "third"])
    scorer = Stage([MediaLostError("gone"), MediaLostError("gone"), "scores"])
    assert outcome(generator, scorer) == "scores"
    assert generator.asked == [REQUEST] * 3
    assert scorer.asked == ["first", "second", "third"]


def test_a_group_that_is_lost_again_and_again_is_given_up() -> None:
    generator, scorer = Stage(["group"] * 4), Stage([MediaLostError("gone")] * 4)
    with pytest.raises(MediaLostError):
        outcome(generator, scorer)


def test_other_losses_are_not_sampled_again() -> None:
    generator, scorer = Stage(["group"]), Stage([WorkLostError("died four times")])
    with pytest.raises(WorkLostError, match="four"):
        outcome(generator, scorer)
    assert generator.asked == [REQUEST]


class Meeting:
    """Generators on threads, none of which goes on before so many work at the same time."""

    def __init__(self, number: int) -> None:
        self._threads, self._meeting = ThreadPoolExecutor(number), Barrier(number, timeout=60)

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        return self._threads.submit(self._sample, request)

    def _sample(self, request: SampleRequest) -> CandidateGroup:
        self._meeting.wait()
        generator = LocalGenerator(FakePolicy(), "", lambda _: published(0.5)[1])
        return generator.submit(request).result()


def test_64_generators_all_work_on_8_prompts_a_round_and_sample_the_same() -> None:
    """Of four candidates each, and one round ahead: whole prompts keep 16 generators busy."""
    recipe = Recipe(name="wide", num_steps=2, rewards=[RewardConfig(name="fake")])
    recipe.rollouts.max_staleness, recipe.generators.max_workers = 1, 64

    def sampled(size: int | str, number: int) -> list[tuple[Any, ...]]:
        recipe.generators.candidates_per_request = size
        scorer = LocalScorer({"fake": FakeReward()}, recipe.rewards, lambda video: {})
        prompts = PromptStream(["red", "a blue ball"], recipe.seed)
        rollouts = Rollouts(recipe, prompts, Meeting(number), scorer, 0)
        rollouts.admit([published(0.5)[0]])
        return [
            (group.prompt, one.candidate.id, one.candidate.seed, one.score, latents.tolist())
            for step in range(2)
            for group in rollouts.take(step).groups
            for one in group.candidates
            for latents in [one.candidate.latents]
        ]

    whole, split = sampled(0, 16), sampled("auto", 64)
    assert split == whole
    assert len({name for _, name, *_ in split}) == 64

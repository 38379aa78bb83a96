"""Requests that are cut into parts give the groups that they give whole."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest

from tests.fakes import FakePolicy, published, request_of
from videorl.errors import MediaLostError, PromptError, WorkLostError
from videorl.sampling.local import LocalGenerator
from videorl.sampling.parts import InParts, cut
from videorl.types import CandidateGroup, SampleRequest

VERSION, WEIGHTS = published(0.5)
REQUEST = request_of(VERSION, num_candidates=5)


@dataclass
class Worker:
    """Samples for real, remembers the seeds it got, and fails for parts that begin at some."""

    errors: dict[int, Exception] = field(default_factory=dict[int, Exception])
    """Index of a part's first candidate -> error."""
    asked: list[tuple[int, ...]] = field(default_factory=list[tuple[int, ...]])

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        self.asked.append(request.seeds)
        if error := self.errors.get(request.first):
            failed: Future[CandidateGroup] = Future()
            failed.set_exception(error)
            return failed
        # A policy of its own for each part, as another worker has.
        return LocalGenerator(FakePolicy(), "", lambda _: WEIGHTS).submit(request)


def test_parts_have_all_seeds_once_and_in_order() -> None:
    parts = [(part.first, part.seeds) for part in cut(REQUEST, 2)]
    assert parts == [(0, (0, 1)), (2, (2, 3)), (4, (4,))]
    assert [part.first for part in cut(cut(REQUEST, 2)[1], 1)] == [2, 3]
    assert cut(REQUEST, 0) == cut(REQUEST, 5) == cut(REQUEST, 9) == [REQUEST]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_the_same_candidates_come_out(size: int) -> None:
    whole = InParts(Worker(), 0).submit(REQUEST).result(0)
    worker = Worker()
    split = InParts(worker, size).submit(REQUEST).result(0)
    assert len(worker.asked) == -(-5 // size)
    found, expected = (one.prompt_embeds["prompt_embeds"] for one in (split, whole))
    assert found.tolist() == expected.tolist()
    assert (split.prompt, split.dropped) == (whole.prompt, {})
    assert [candidate.id for candidate in split.candidates] == [
        candidate.id for candidate in whole.candidates
    ]
    for one, other in zip(split.candidates, whole.candidates, strict=True):
        assert (one.index, one.seed, one.version) == (other.index, other.seed, other.version)
        assert one.latents.equal(other.latents)
        assert (one.video.frames == other.video.frames).all()


def test_a_lost_part_costs_its_candidates_alone() -> None:
    worker = Worker({0: WorkLostError("died four times")})
    group = InParts(worker, 2).submit(REQUEST).result(0)
    assert [candidate.index for candidate in group.candidates] == [2, 3, 4]
    assert group.dropped == {"request_lost": 2}
    assert group.prompt_embeds is not None


def test_a_group_is_lost_with_all_its_parts() -> None:
    worker = Worker({first: WorkLostError(f"died at {first}") for first in (0, 2, 4)})
    with pytest.raises(WorkLostError, match="died at 0"):
        InParts(worker, 2).submit(REQUEST).result(0)


@pytest.mark.parametrize("error", [PromptError("too long"), MediaLostError("gone"), OSError("no")])
def test_other_errors_of_a_part_are_those_of_the_group(error: Exception) -> None:
    with pytest.raises(type(error)):
        InParts(Worker({2: error}), 2).submit(REQUEST).result(0)

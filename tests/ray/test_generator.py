"""Generators and the weight store on a real Ray, with fake models."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from ray import ObjectRef

from actors.canary import ray_canary
from actors.encoder import RayEncoder
from actors.generator import RayGenerator, generator_creator
from actors.processes.followers import Sharing
from actors.store.media import fetch
from actors.store.weights import create_weight_store, publish, pull
from tests.fakes import FakePolicy, published, request_of
from tests.learners import tiny_recipe
from tests.ray.roles import LIMITS, OPTIONS, first_time
from videorl.embedding import Embedding
from videorl.errors import CanaryError, CheckpointError, PromptError, WorkLostError
from videorl.policies import compiling
from videorl.sampling.local import LocalGenerator
from videorl.types import Candidate, CandidateGroup, Prompt, SampleRequest, Video

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


TEXTS = ["a red ball", "a very large blue square", "a red ball"]


class DyingPolicy(FakePolicy):
    """Ends its process in the middle of the first request."""

    def __init__(self, marker: Path) -> None:
        super().__init__()
        self._marker = marker

    def decode(self, latents_BCTHW: torch.Tensor) -> list[Video]:
        """Decode, or die."""
        if first_time(self._marker):
            os._exit(1)
        return super().decode(latents_BCTHW)


class SpoiledPolicy(FakePolicy):
    """Samples NaN for the second seed of every request."""

    def sample(self, *args: Any, **named: Any) -> torch.Tensor:
        """Sample, and spoil."""
        latents_BCTHW = super().sample(*args, **named)
        latents_BCTHW[1, 0, 0, 0, 0] = torch.nan
        return latents_BCTHW


class SharedPolicy(FakePolicy):
    """Draws one channel in each of two processes, of which one fails as it is told, but once.

    Args:
        marker: Is made by the failure.
        fault: `dies`: the second process ends in mid request; `loads`: its weights go wrong;
            `decodes`: the first process cannot decode what both have sampled.
    """

    def __init__(self, marker: Path, fault: str) -> None:
        self._rank, self._fault = torch.distributed.get_rank(), fault
        self._marker = marker
        super().__init__(tamper=self._is_faulty("loads", 1))

    def _is_faulty(self, fault: str, rank: int) -> bool:
        return (fault, rank) == (self._fault, self._rank) and first_time(self._marker)

    def sample(self, *args: Any, **named: Any) -> torch.Tensor:
        """Sample, or die."""
        if self._is_faulty("dies", 1):
            os._exit(1)
        latents_BCTHW = super().sample(*args, **named)
        latents_BCTHW[:, 1 - self._rank] = 0
        torch.distributed.all_reduce(latents_BCTHW)
        if self._rank == 1 and self._fault == "decodes":
            # As if the compilation of this process alone had failed.
            compiling._failures.append(weakref.ref(self.trainable_module()))
        return latents_BCTHW

    def decode(self, latents_BCTHW: torch.Tensor) -> list[Video]:
        """Decode, or fail."""
        if self._is_faulty("decodes", 0):
            raise RuntimeError("out of memory")
        return super().decode(latents_BCTHW)


Make = Callable[[Callable[[torch.device], FakePolicy]], RayGenerator]
VERSIONS = [published(1.5, 0), published(-2.0, 1)]


@pytest.fixture(scope="module")
def store(cluster: None) -> Any:
    """A weight store that holds two versions."""
    store = create_weight_store(keep=2)
    for version, weights in VERSIONS:
        publish(store, version, weights)
    return store


@pytest.fixture(scope="module")
def encoder(cluster: None) -> Iterator[RayEncoder]:
    """An encoder of fake prompts."""
    encoder = RayEncoder(lambda device: FakePolicy(), {"num_cpus": 1.0})
    yield encoder
    encoder.close()


@pytest.fixture
def make(store: Any, encoder: RayEncoder) -> Iterator[Make]:
    """Make generators that are closed in the end."""
    made: list[RayGenerator] = []

    def create(load: Callable[[torch.device], FakePolicy]) -> RayGenerator:
        made.append(RayGenerator(generator_creator(load, store, OPTIONS), encoder, "", LIMITS))
        return made[-1]

    yield create
    for generator in made:
        generator.close()


def requests() -> list[SampleRequest]:
    """Return requests for several prompts and both versions."""
    return [request_of(VERSIONS[index % 2][0], text, index) for index, text in enumerate(TEXTS)]


def expected() -> list[CandidateGroup]:
    """Return what one policy in this process samples for `requests()`."""
    generator = LocalGenerator(FakePolicy(), "", dict(VERSIONS).__getitem__)
    return [generator.submit(request).result() for request in requests()]


def assert_as_expected(generator: RayGenerator) -> list[CandidateGroup]:
    """Check that `generator` gives exactly what a local one does."""
    groups = [future.result(180) for future in [generator.submit(one) for one in requests()]]
    for group, wanted in zip(groups, expected(), strict=True):
        (found,) = fetch([group.prompt_embeds])
        assert torch.equal(found["prompt_embeds"], wanted.prompt_embeds["prompt_embeds"])
        for one, same in zip(group.candidates, wanted.candidates, strict=True):
            assert (one.id, one.seed, one.version) == (same.id, same.seed, same.version)
            latents, video = fetch([one.latents, one.video])
            assert torch.equal(latents, same.latents)
            assert np.array_equal(video.frames, same.video.frames)
    return groups


def test_generators_give_what_a_local_one_gives_and_the_driver_holds_references(
    make: Make,
) -> None:
    groups = assert_as_expected(make(lambda device: FakePolicy()))
    media = [each for group in groups for one in group.candidates for each in _media(one)]
    assert all(isinstance(each, ObjectRef) for each in media)
    assert len(set(media)) == len(media), "each is an object of its own"


def _media(candidate: Candidate) -> list[Any]:
    return [candidate.latents, candidate.video]


def test_a_generator_that_dies_in_mid_request_changes_nothing(make: Make, tmp_path: Path) -> None:
    generator = make(lambda device: DyingPolicy(tmp_path / "died"))
    assert_as_expected(generator)
    assert generator.pool.stats().replaced == 1


@pytest.mark.parametrize(("fault", "replaced"), [("dies", 1), ("loads", 1), ("decodes", 0)])
def test_two_processes_sample_what_one_does_and_are_replaced_together(
    fault: str, replaced: int, store: Any, encoder: RayEncoder, tmp_path: Path
) -> None:
    load = partial(SharedPolicy, tmp_path / "failed", fault)
    sharing = Sharing(2, lambda device: load())
    creator = generator_creator(lambda device: load(), store, OPTIONS, sharing)
    generator = RayGenerator(creator, encoder, "", LIMITS)
    try:
        assert_as_expected(generator)
        assert generator.pool.stats().replaced == replaced
        assert (generator.num_uncompiled() > 0) == (fault == "decodes"), "followers are asked too"
    finally:
        generator.close()


def test_a_tampered_load_is_detected_and_the_generator_replaced(make: Make, tmp_path: Path) -> None:
    generator = make(lambda device: FakePolicy(tamper=first_time(tmp_path / "tampered")))
    assert_as_expected(generator)
    assert generator.pool.stats().replaced == 1


def test_weights_that_never_arrive_whole_lose_the_group(make: Make) -> None:
    generator = make(lambda device: FakePolicy(tamper=True))
    with pytest.raises(WorkLostError, match="WeightMismatchError: live parameters"):
        generator.submit(requests()[0]).result(180)


class OtherBase(FakePolicy):
    """Has the published weights, but samples something else."""

    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> torch.Tensor:
        """Sample, a little off."""
        return super().sample(prompt_embeds, negative_prompt_embeds, seeds) + 0.5


class SamplingLearner:
    """The learner's part in a canary: a policy with the newest weights."""

    def sample(self, request: SampleRequest, embeds: Any, negative_embeds: Any) -> torch.Tensor:
        """Sample in this process."""
        policy = FakePolicy()
        policy.load_weights(dict(VERSIONS)[request.version])
        prompt_embeds, negative_embeds_LD = fetch([embeds, negative_embeds])
        return policy.sample(prompt_embeds, negative_embeds_LD, request.seeds)


def canary_of(generator: RayGenerator) -> float:
    learner: Any = SamplingLearner()
    recipe = tiny_recipe()
    tolerance = recipe.rollouts.canary_tolerance
    return ray_canary(recipe.seed, tolerance, generator, learner)(VERSIONS[1][0])


def test_a_generator_that_samples_something_else_is_fenced_by_the_canary(
    make: Make, tmp_path: Path
) -> None:
    generator = make(lambda device: OtherBase() if first_time(tmp_path / "first") else FakePolicy())
    assert canary_of(generator) == 0.0
    assert generator.pool.stats().replaced == 1
    assert_as_expected(generator)


def test_generators_that_all_sample_something_else_end_the_run(make: Make) -> None:
    wanted = r"canary of step 1: no generator agrees with the learner .*WeightMismatchError"
    with pytest.raises(CanaryError, match=wanted):
        canary_of(make(lambda device: OtherBase()))


def test_a_latent_that_is_not_finite_costs_its_candidate_as_in_one_process(make: Make) -> None:
    version, weights = VERSIONS[0]
    local = LocalGenerator(SpoiledPolicy(), "", lambda _: weights)
    for generator in (local, make(lambda device: SpoiledPolicy())):
        group = generator.submit(request_of(version)).result()
        assert group.dropped == {"latents_not_finite": 1}
        assert [candidate.index for candidate in group.candidates] == [0, 2]


def test_a_prompt_that_is_too_long_fails_its_own_group_only(make: Make) -> None:
    generator = make(lambda device: FakePolicy())
    good, long = requests()[0], request_of(VERSIONS[0][0], "very " * 20)
    futures = [generator.submit(long), generator.submit(good), generator.submit(long)]
    for future in (futures[0], futures[2]):
        with pytest.raises(PromptError, match="more than 8 words"):
            future.result(180)
    assert len(futures[1].result(180).candidates) == 3


def test_the_weight_store_keeps_the_newest_and_names_what_it_has() -> None:
    store = create_weight_store(keep=2)
    versions = [published(float(step), step) for step in range(3)]
    for version, weights in versions:
        assert publish(store, version, weights) < 200
    assert torch.equal(pull(store, versions[2][0])["scale"], torch.tensor([2.0, 2.0]))
    with pytest.raises(CheckpointError, match=r"step 0 .* it holds: 1 \(.*\), 2 \("):
        pull(store, versions[0][0])


def test_a_weight_store_that_dies_takes_the_next_version() -> None:
    store = create_weight_store(keep=2)
    (old, weights), (new, newer) = published(1.0, 1), published(2.0, 2)
    publish(store, old, weights)
    ray.kill(store, no_restart=False)
    with pytest.raises(CheckpointError, match="it holds: none"):
        for _ in range(600):  # it may answer a last time before it dies
            pull(store, old)
            time.sleep(0.05)
    publish(store, new, newer)
    assert torch.equal(pull(store, new)["scale"], torch.tensor([2.0, 2.0]))


def test_prompt_and_seeds_name_the_candidates(make: Make) -> None:
    request = SampleRequest(7, Prompt(42, "a red ball"), (5,), VERSIONS[1][0])
    (candidate,) = make(lambda device: FakePolicy()).submit(request).result(180).candidates
    assert (candidate.id, candidate.seed) == ("r000007-p000042-c00", 5)

"""Candidates come from proven weights, or not at all."""

from __future__ import annotations

import pytest
import torch

from tests.fakes import FakePolicy, published, request_of
from videorl.embedding import plain
from videorl.errors import WeightMismatchError
from videorl.sampling.sampler import CandidateSampler, candidate_group
from videorl.types import Video

EMBEDS = plain(torch.tensor([[3.0, 1.0]]))


def test_a_sample_depends_on_weights_prompt_and_seed() -> None:
    version, weights = published(2.0)
    sampler = CandidateSampler(FakePolicy())
    sampler.load(version, weights)
    latents, videos, timings = sampler.sample(request_of(version, index=4), EMBEDS, EMBEDS)
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(4001))
    torch.testing.assert_close(latents[1], 2.0 * noise + 2.0)
    assert [len(video.frames) for video in videos if isinstance(video, Video)] == [9, 9, 9]
    assert set(timings) == {"sample_s", "decode_s"}


def test_a_tampered_load_is_detected_and_leaves_nothing_to_sample_from() -> None:
    version, weights = published(2.0)
    sampler = CandidateSampler(FakePolicy(tamper=True))
    with pytest.raises(WeightMismatchError, match="did not arrive whole"):
        sampler.load(version, weights)
    with pytest.raises(WeightMismatchError, match="no version is loaded"):
        sampler.sample(request_of(version), EMBEDS, EMBEDS)


def test_another_version_than_the_live_one_is_refused() -> None:
    (old, weights), (new, _) = published(1.0, 1), published(2.0, 2)
    sampler = CandidateSampler(FakePolicy())
    sampler.load(old, weights)
    with pytest.raises(WeightMismatchError, match=r"request for step 2 .*but step 1"):
        sampler.sample(request_of(new), EMBEDS, EMBEDS)


@pytest.mark.parametrize("verify_every_request", [False, True])
def test_weights_that_change_after_the_load_are_seen_if_asked_for(
    verify_every_request: bool,
) -> None:
    version, weights = published(2.0)
    policy = FakePolicy()
    sampler = CandidateSampler(policy, verify_every_request=verify_every_request)
    sampler.load(version, weights)
    policy.load_weights(published(3.0)[1])
    if verify_every_request:
        with pytest.raises(WeightMismatchError):
            sampler.sample(request_of(version), EMBEDS, EMBEDS)
    else:
        sampler.sample(request_of(version), EMBEDS, EMBEDS)


def test_media_are_named_in_the_order_of_the_seeds() -> None:
    version, _ = published(1.0, 5)
    group = candidate_group(request_of(version, index=2), version, "e", "abc", "xyz")
    assert [(sampled.seed, sampled.latents, sampled.video) for sampled in group.candidates] == [
        (2000, "a", "x"),
        (2001, "b", "y"),
        (2002, "c", "z"),
    ]
    assert {sampled.version for sampled in group.candidates} == {version}

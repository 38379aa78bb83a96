"""A NaN or infinite latent costs its candidate, with a reason that is counted, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.fakes import FakePolicy, FakeReward, published, request_of
from tests.learners import tiny_learner, tiny_pairs, tiny_recipe
from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import RewardConfig
from videorl.embedding import Embedding
from videorl.errors import VideoError
from videorl.policies import load_policy
from videorl.policies.checkpoints import PARTS
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import ScoredGroup, Video

REWARDS = [RewardConfig("fake")]


class Spoiled(FakePolicy):
    """Some of its latents hold one number that is not finite; some cannot be decoded."""

    def __init__(self, values: dict[int, float], undecodable: Sequence[int] = ()) -> None:
        super().__init__()
        self._values = values
        self._undecodable = undecodable
        self._marks: list[float] = []

    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        latents = super().sample(prompt_embeds, negative_prompt_embeds, seeds)
        for index, value in self._values.items():
            latents[index, 0, 0, 0, 0] = value
        self._marks = [float(latents[index].sum()) for index in self._undecodable]
        return latents

    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        assert bool(latents_BCTHW.isfinite().all()), "it would paint garbage"
        if any(float(latents.sum()) in self._marks for latents in latents_BCTHW):
            raise VideoError("the decoded pixels hold NaN")
        return super().decode(latents_BCTHW)


def scored(policy: FakePolicy, reward: FakeReward | None = None) -> ScoredGroup:
    version, weights = published(2.0)
    generator = LocalGenerator(policy, "", lambda _: weights)
    scorer = LocalScorer({"fake": reward or FakeReward()}, REWARDS, lambda video: {})
    return scorer.submit(generator.submit(request_of(version)).result()).result()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_others_of_the_prompt_are_scored_as_ever(value: float) -> None:
    whole, group = scored(FakePolicy()), scored(Spoiled({1: value}))
    assert group.dropped == {"latents_not_finite": 1}
    assert [each.candidate.index for each in group.candidates] == [0, 2]
    assert [each.candidate.seed for each in group.candidates] == [0, 2]
    kept = [whole.candidates[0], whole.candidates[2]]
    assert [each.score for each in group.candidates] == [each.score for each in kept]
    assert all(bool(each.candidate.latents.isfinite().all()) for each in group.candidates)


def test_a_group_of_which_nothing_is_left_is_not_shown_to_a_reward() -> None:
    reward = FakeReward(error=AssertionError("there is nothing to score"))
    group = scored(Spoiled(dict.fromkeys(range(3), math.nan)), reward)
    assert (group.candidates, group.dropped) == ((), {"latents_not_finite": 3})


def test_reasons_are_counted_apart() -> None:
    group = scored(Spoiled({0: math.nan}, undecodable=[2]))
    assert group.dropped == {"latents_not_finite": 1, "video_undecodable": 1}
    assert [each.candidate.index for each in group.candidates] == [1]


def test_a_vae_that_overflows_paints_no_black_video(tiny_checkpoints: dict[str, Path]) -> None:
    policy = load_policy(tiny_policy(tiny_checkpoints["wan"]), tiny_sampling(), parts=PARTS)
    prompt, negative = policy.encode(["red", ""])
    latents = policy.sample(prompt, negative, [1])
    with pytest.raises(VideoError, match="pixels hold NaN"):
        policy.decode(latents * torch.nan)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("micro_batch_size", [1, 8])
def test_a_learner_learns_from_the_others_as_if_it_were_not_there(
    value: float, micro_batch_size: int, tmp_path: Path
) -> None:
    """Whatever way it came: an archive, a damaged store, a generator of somebody's own."""
    pairs = tiny_pairs(0, 3)
    spoiled = pairs[2].rejected.candidate.latents.clone()
    spoiled[0, 0, 0, 0] = value
    candidate = replace(pairs[2].rejected.candidate, latents=spoiled)
    bad = replace(pairs[2], rejected=replace(pairs[2].rejected, candidate=candidate))
    outputs = []
    for number, examples in enumerate([[*pairs[:2], bad], pairs[:2]]):
        recipe = tiny_recipe()
        recipe.learner.micro_batch_size = micro_batch_size
        learner, _ = tiny_learner(recipe, tmp_path / str(number))
        learner.start()
        outputs.append(learner.step(0, examples))
    found, expected = outputs
    assert found.version == expected.version
    assert found.metrics["learn/not_finite"] == 1
    assert "learn/not_finite" not in expected.metrics
    assert found.metrics["optimizer/skipped"] == 0
    for name in ("learn/examples", "learn/loss", "learn/accuracy"):
        assert found.metrics[name] == expected.metrics[name]


def test_embeddings_that_are_not_finite_cost_their_example_too(tmp_path: Path) -> None:
    first, second = tiny_pairs(0, 2)
    learner, _ = tiny_learner(tiny_recipe(), tmp_path)
    learner.start()
    bad = replace(second, prompt_embeds=second.prompt_embeds.map(lambda tensor: tensor * torch.nan))
    metrics = learner.step(0, [first, bad]).metrics
    assert (metrics["learn/examples"], metrics["learn/not_finite"]) == (1, 1)
    assert metrics["optimizer/skipped"] == 0

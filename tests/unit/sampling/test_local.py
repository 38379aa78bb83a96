"""The generator and scorer of this process."""

from __future__ import annotations

import pytest
from torch import Tensor

from tests.fakes import FakePolicy, FakeReward, grey, group_of, published, request_of
from videorl.config import RewardConfig
from videorl.errors import ConfigError, PromptError, WeightMismatchError
from videorl.sampling.embeddings import EmbeddingCache
from videorl.sampling.local import LocalGenerator, LocalScorer
from videorl.types import Condition, WeightVersion


def test_weights_are_loaded_when_a_request_wants_others_and_prompts_encoded_once() -> None:
    versions = dict([published(1.0, 0), published(2.0, 1)])
    old, new = versions
    loads: list[int] = []
    policy = FakePolicy()

    def weights(version: WeightVersion) -> dict[str, Tensor]:
        loads.append(version.step)
        return versions[version]

    generator = LocalGenerator(policy, "", weights)
    groups = [generator.submit(request_of(version)).result() for version in (old, old, new)]
    assert loads == [0, 1]
    assert [group.candidates[0].version.step for group in groups] == [0, 0, 1]
    assert policy.num_encoded == 2, "the prompt and the negative prompt, once each"
    assert groups[0].prompt_embeds["prompt_embeds"].tolist() == [[1.0, 1.0], [3.0, 1.0], [4.0, 1.0]]


def test_errors_arrive_through_the_future() -> None:
    version, weights = published(1.0)
    too_long = LocalGenerator(FakePolicy(), "", lambda _: weights).submit(
        request_of(version, "very " * 20)
    )
    assert isinstance(too_long.exception(), PromptError)
    tampered = LocalGenerator(FakePolicy(tamper=True), "", lambda _: weights)
    assert isinstance(tampered.submit(request_of(version)).exception(), WeightMismatchError)


def test_scores_unseen_metrics_and_drops_come_together() -> None:
    model = FakeReward()
    scorer = LocalScorer({"fake": model}, [RewardConfig(name="fake")], lambda video: {"n": 3.0})
    scored = scorer.submit(group_of([grey(0), grey(255)])).result()
    assert [candidate.score.total for candidate in scored.candidates] == [0.0, 1.0]
    # Black and white differ by 1 everywhere.
    assert scored.candidates[1].unseen == {"n": 3.0, "diversity": 1.0}
    model.replace["contrast"] = float("nan")
    scored = scorer.submit(group_of([grey(0), grey(255)])).result()
    assert (scored.candidates, scored.dropped) == ((), {"score_not_finite": 2})


def test_a_weight_on_an_unknown_dimension_is_found_at_once() -> None:
    with pytest.raises(ConfigError, match="unknown dimension 'blur'"):
        LocalScorer(
            {"fake": FakeReward()},
            [RewardConfig(name="fake", dimension_weights={"blur": 1.0})],
            lambda video: {},
        )


def test_the_embedding_cache_forgets_what_was_used_longest_ago() -> None:
    encoded: list[Condition] = []

    def encode(text: Condition) -> str:
        encoded.append(text)
        return str(text).upper()

    cache = EmbeddingCache(encode, capacity=2)
    assert [cache[text] for text in ("a", "b", "a", "c", "a", "b")] == list("ABACAB")
    assert encoded == ["a", "b", "c", "b"]
    cache.discard("a")
    assert (len(cache), cache["a"], encoded[-1]) == (1, "A", "a")

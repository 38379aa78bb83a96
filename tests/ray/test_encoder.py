"""The text encoder's pool: workers that die while they load, and embeddings that are lost."""

from __future__ import annotations

import os
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray import ObjectRef
from ray.exceptions import ObjectLostError

from actors.encoder import RayEncoder
from actors.generator import RayGenerator, generator_creator
from actors.store.media import opened
from actors.store.weights import create_weight_store, publish
from tests.fakes import FakePolicy, published, request_of
from tests.ray.roles import LIMITS, first_time
from videorl.errors import PoolFailedError, PromptError
from videorl.futures import completed
from videorl.types import Condition

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

OPTIONS = {"num_cpus": 0.0}


@ray.remote(num_cpus=0, max_retries=0)
def lose() -> None:
    """Fail as what was lost with its node does wherever it is needed."""
    raise ObjectLostError("00", b"", "")


class LosingEncoder(RayEncoder):
    """The first embedding of every prompt goes with its node."""

    def __init__(self) -> None:
        super().__init__(lambda device: FakePolicy(), OPTIONS, LIMITS)
        self.lost: dict[Condition, ObjectRef] = {}

    def _send(self, prompt: Condition) -> Future[ObjectRef]:
        if prompt in self.lost:
            return super()._send(prompt)
        self.lost[prompt] = lose.remote()
        return completed(lambda: self.lost[prompt])


def embedding_of(reference: Any) -> torch.Tensor:
    (embedding,) = opened([reference])
    return embedding["prompt_embeds"]


def test_an_encoder_that_dies_while_it_loads_is_replaced(tmp_path: Path) -> None:
    def load(device: torch.device) -> FakePolicy:
        if first_time(tmp_path / "loaded"):
            os._exit(1)
        return FakePolicy()

    encoder = RayEncoder(load, OPTIONS, LIMITS)
    try:
        found = embedding_of(encoder.submit("a red circle").result(180))
        assert found[:, 0].tolist() == [1.0, 3.0, 6.0]
        assert encoder.pool.stats().replaced == 1
        with pytest.raises(PromptError):
            encoder.submit("word " * 50).result(180)
    finally:
        encoder.close()


def test_an_encoder_that_cannot_load_ends_the_run_and_not_single_prompts() -> None:
    def load(device: torch.device) -> FakePolicy:
        raise OSError("no such model")

    encoder = RayEncoder(load, OPTIONS, LIMITS)
    try:
        with pytest.raises(PoolFailedError, match=r"encoder: 3 workers .* OSError: no such model"):
            encoder.submit("a red circle").result(180)
    finally:
        encoder.close()


def test_embeddings_that_went_with_their_node_are_made_anew_for_a_generator() -> None:
    version, weights = published(1.5, 0)
    store = create_weight_store(keep=1)
    publish(store, version, weights)
    encoder = LosingEncoder()
    creator = generator_creator(lambda device: FakePolicy(), store, OPTIONS)
    generator = RayGenerator(creator, encoder, "", LIMITS)
    try:
        group = generator.submit(request_of(version)).result(180)
        assert len(group.candidates) == len(request_of(version).seeds)
        assert encoder.pool.stats().completed == len(encoder.lost) == 2
    finally:
        generator.close()
        encoder.close()


def test_a_lost_embedding_is_forgotten_once_however_many_find_it() -> None:
    encoder = LosingEncoder()
    try:
        lost = encoder.submit("a red circle").result(180)
        encoder.forget("a red circle", lost)
        again = encoder.submit("a red circle").result(180)
        encoder.forget("a red circle", lost)
        assert encoder.submit("a red circle").result(180) == again
        assert embedding_of(again)[:, 0].tolist() == [1.0, 3.0, 6.0]
        assert encoder.pool.stats().completed == 1
    finally:
        encoder.close()

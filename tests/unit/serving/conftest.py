"""A server in this process, over a policy and a reward model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from tests.serving import HEADERS, OFFER, SMALL, TEXT, LocalEngine, local_app, small_recipe
from videorl.rewards import load
from videorl.serving.policy import Served, ServedPolicy
from videorl.serving.scorer import UploadScorer
from videorl.serving.uploads import UploadDecoder


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    decoder = UploadDecoder(SMALL)
    scorer = UploadScorer(load("moving_shapes"), decoder)
    yield LocalEngine(ServedPolicy(Served(small_recipe())), {"moving_shapes": scorer})
    decoder.close()


@pytest.fixture
def client(engine: LocalEngine, tmp_path: Path) -> Iterator[TestClient]:
    app = local_app(engine, OFFER, tmp_path / "served")
    with TestClient(app, headers=HEADERS, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def mp4(engine: LocalEngine, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    app = local_app(engine, OFFER, tmp_path_factory.mktemp("mp4"))
    with TestClient(app, headers=HEADERS) as client:
        answer = client.post("/v1/videos/sync", json={"prompt": TEXT, "seed": 1})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "video/mp4")
    return answer.content

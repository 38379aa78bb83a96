"""Whatever a request holds, within or against the server's own description: never a 5xx."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import given
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from tests.serving import HEADERS, SMALL, LocalEngine, local_app, small_recipe
from videorl.config import SamplingConfig
from videorl.rewards import load
from videorl.serving.errors import Failure
from videorl.serving.requests import Offer, VideoTask
from videorl.serving.scorer import UploadScorer
from videorl.serving.uploads import UploadDecoder

CONFORMS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
OFFER = Offer("shapes", small_recipe().sampling, ("base",), ("motion",), ("moving_shapes",))
ROUTES = {
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/videos"),
    ("POST", "/v1/videos"),
    ("POST", "/v1/videos/sync"),
    ("GET", "/v1/videos/{video_id}"),
    ("GET", "/v1/videos/{video_id}/content"),
    ("DELETE", "/v1/videos/{video_id}"),
    ("POST", "/v1/rewards"),
}


class Instant(LocalEngine):
    """Samples nothing: what is fuzzed is all that stands before it."""

    def __init__(self, decoder: UploadDecoder) -> None:
        self.scorers = {"moving_shapes": UploadScorer(load("moving_shapes"), decoder)}
        self.seen = []

    async def fit(self, sampling: SamplingConfig, *, exactly: bool) -> SamplingConfig | Failure:
        return sampling if sampling.width % 16 == 0 else Failure("width is odd", "no")

    async def sample(self, tasks: Sequence[VideoTask]) -> Sequence[bytes | Failure]:
        return [b"mp4"] * len(tasks)


@pytest.fixture
def schema(tmp_path: Path) -> Iterator[Any]:
    decoder = UploadDecoder(SMALL)
    app = local_app(Instant(decoder), OFFER, tmp_path / "served")
    yield schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)
    decoder.close()


def test_no_request_is_a_fault_of_the_server(schema: Any, tmp_path: Path) -> None:
    statuses: dict[tuple[str, str], set[int]] = {}

    def check(case: Case[Any]) -> None:
        answer = case.call(headers=HEADERS)
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, checks=CONFORMS)
        route = (case.operation.method.upper(), case.operation.path)
        statuses.setdefault(route, set()).add(answer.status_code)

    for found in schema.get_all_operations():
        operation = found.ok()
        modes = [GenerationMode.POSITIVE]
        if operation.body or operation.query:  # nothing to get wrong elsewhere
            modes.append(GenerationMode.NEGATIVE)
        for mode in modes:
            given(case=operation.as_strategy(mode))(lambda case: check(case))()
    assert statuses.keys() == ROUTES
    assert {200, 422} <= statuses["POST", "/v1/videos"]
    assert [path.name for path in tmp_path.iterdir()] == ["served"]

"""What stands before every route."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serving import HEADERS, OFFER, SMALL, TOKEN, LocalEngine, error, local_app
from videorl.serving.app import build_app
from videorl.serving.errors import RequestError
from videorl.serving.guards import Guard
from videorl.serving.results import Results
from videorl.serving.work import Replicas


@pytest.mark.parametrize(
    "header", ["", TOKEN, f"Basic {TOKEN}", "Bearer ", f"Bearer {TOKEN}x", "Bearer \xff"]
)
def test_without_the_token_nothing_is_answered_but_health(client: TestClient, header: str) -> None:
    headers = {b"Authorization": header.encode("latin-1")}
    for method, path in (("GET", "/v1/videos"), ("POST", "/v1/rewards"), ("GET", "/openapi.json")):
        answer = client.request(method, path, headers=headers)
        assert error(answer) == (401, "invalid_api_key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for path in ("/health", "/ready"):
        assert client.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Host": "[::1]:8000", "Origin": "http://127.0.0.1:3000"}, 200),
        ({"Host": "attacker.example"}, 403),
        ({"Host": "localhost.attacker.example:8000"}, 403),
        ({"Host": "localhost", "Origin": "https://attacker.example"}, 403),
        ({"Host": "localhost", "Origin": "null"}, 403),
        ({"Host": "[::1"}, 403),
    ],
)
def test_without_a_token_pages_of_other_hosts_reach_nothing(
    engine: LocalEngine, tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    results = Results(tmp_path, SMALL)
    app = build_app(engine, OFFER, results, token=None, limits=SMALL, replicas=Replicas())
    for path in ("/v1/models", "/health"):
        assert TestClient(app).get(path, headers=headers).status_code == status


def test_a_client_that_sends_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> list[int]:
        seen: list[int] = []
        limits = SMALL.__class__(**{**vars(SMALL), "upload_s": 0.05})

        async def app(scope: Any, receive: Any, send: Any) -> None:
            while (await receive()).get("more_body"):
                pass

        async def slow() -> dict[str, Any]:
            await asyncio.sleep(0.02)
            return {"type": "http.request", "body": b"x", "more_body": True}

        async def nobody(message: Any) -> None:
            raise AssertionError(message)

        guard = Guard(app, limits, None, lambda route, status, seconds: seen.append(status))
        scope = {"type": "http", "path": "/v1/videos", "headers": []}
        with pytest.raises(RequestError, match=r"did not come within 0\.05 s"):
            await guard(scope, slow, nobody)
        return seen

    assert asyncio.run(check()) == [500]


def test_routes_are_counted_by_few_names(client: TestClient, engine: LocalEngine) -> None:
    engine.seen.clear()
    for path in (f"/v1/videos/video_{'0' * 32}", "/v1/videos/other", "/favicon.ico", "/health"):
        client.get(path)
    assert engine.seen == [
        ("/v1/videos/{video_id}", 404),
        ("other", 404),
        ("other", 404),
        ("/health", 200),
    ]
    assert "/health 200" in client.get("/metrics").text


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_fault(
    engine: LocalEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    engine.seen.clear()
    app = local_app(engine, OFFER, tmp_path)
    given = {**HEADERS, "Content-Type": "application/json"}
    headers = [(name.lower().encode(), value.encode()) for name, value in given.items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "headers": headers}
    asyncio.run(app({**scope, "query_string": b"", "root_path": ""}, leave, send))
    assert engine.seen == [("/v1/videos", 400)]
    assert "a request failed" not in caplog.text

"""The HTTP side, over a policy and a reward model in this process."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.serving import HEADERS, OFFER, SMALL, TEXT, LocalEngine, error, local_app
from videorl.rewards import load
from videorl.types import Score


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
def test_a_video_is_made_listed_and_deleted(client: TestClient, mp4: bytes, form: bool) -> None:
    fields = {"prompt": TEXT, "seed": "1"}
    files = {name: (None, value) for name, value in fields.items()}
    made = (
        client.post("/v1/videos", files=files) if form else client.post("/v1/videos", json=fields)
    )
    video_id = made.json()["id"]
    found: dict[str, Any] = {}
    for _ in range(100):
        if (found := client.get(f"/v1/videos/{video_id}").json())["status"] == "completed":
            break
    assert (found["progress"], found["model"], found["size"]) == (100, "base", "32x32")
    assert client.get(f"/v1/videos/{video_id}/content").content == mp4
    listed = client.get("/v1/videos", params={"limit": 1}).json()
    assert [video["id"] for video in listed["data"]] == [video_id]
    assert not listed["has_more"]
    assert client.delete(f"/v1/videos/{video_id}").json()["deleted"]
    for answer in (
        client.get(f"/v1/videos/{video_id}"),
        client.get(f"/v1/videos/{video_id}/content"),
        client.delete(f"/v1/videos/{video_id}"),
        client.get("/v1/videos", params={"after": video_id}),
    ):
        assert error(answer) == (404, "video_not_found")


def test_a_prompt_that_is_too_long_for_the_model_is_said_in_the_video(client: TestClient) -> None:
    video_id = client.post("/v1/videos", json={"prompt": "red " * 100}).json()["id"]
    found = client.get(f"/v1/videos/{video_id}").json()
    assert found["status"] == "failed"
    assert "tokens" in found["error"]["message"]
    assert error(client.get(f"/v1/videos/{video_id}/content")) == (409, "video_failed")
    answer = client.post("/v1/videos/sync", json={"prompt": "red " * 100})
    assert error(answer) == (422, "prompt_unusable")


def test_uploads_are_scored_as_the_model_scores_the_file(
    client: TestClient, mp4: bytes, tmp_path: Path
) -> None:
    (tmp_path / "video.mp4").write_bytes(mp4)
    model: Any = load("moving_shapes")
    (expected,) = model.score([tmp_path / "video.mp4"], [TEXT])
    answer = client.post("/v1/rewards", files={"video": mp4}, data={"prompt": TEXT})
    (found,) = answer.json()["scores"].values()
    assert found == {"total": expected.total, "dimensions": dict(expected.dimensions)}


@pytest.mark.parametrize(
    ("data", "video", "said"),
    [
        ({"prompt": TEXT, "models": "video_reward"}, b"x", (404, "reward_not_loaded")),
        ({"prompt": TEXT, "models": "../x"}, b"x", (404, "reward_not_loaded")),
        ({"prompt": TEXT}, b"corrupt" * 100, (422, "video_unreadable")),
        ({"prompt": TEXT}, b"", (422, "video_unreadable")),
        ({"prompt": "no such thing"}, None, (422, "unscorable")),
        ({"prompt": ""}, b"x", (422, None)),
        ({"prompt": "x" * 20_000}, b"x", (422, None)),
        ({"prompt": TEXT, "path": "/etc/passwd"}, b"x", (422, None)),
        ({"prompt": TEXT}, b"x" * 3 * 2**20, (413, "request_too_large")),
    ],
)
def test_uploads_that_cannot_be_scored(
    client: TestClient,
    mp4: bytes,
    data: dict[str, str],
    video: bytes | None,
    said: tuple[int, str | None],
) -> None:
    files = {"video": ("../../x.mp4", mp4 if video is None else video)}
    assert error(client.post("/v1/rewards", data=data, files=files)) == said


def test_several_uploads_of_a_request_are_scored_each_by_itself(
    client: TestClient, mp4: bytes
) -> None:
    alone = client.post("/v1/rewards", files={"video": mp4}, data={"prompt": TEXT}).json()
    files = [("video", ("a.mp4", each)) for each in (mp4, b"corrupt" * 100, mp4)]
    answer = client.post("/v1/rewards", files=files, data={"prompt": TEXT})
    first, damaged, last = answer.json()["data"]
    assert (answer.status_code, first, last) == (200, alone, alone)
    assert (damaged["object"], damaged["error"]["code"]) == ("reward.error", "video_unreadable")
    own = [TEXT, "no such thing", TEXT]
    data = client.post("/v1/rewards", files=files[::2] + files[:1], data={"prompt": own}).json()[
        "data"
    ]
    assert [each["prompt"] for each in data] == own
    assert data[1]["error"]["code"] == "unscorable" and data[2] == alone


def test_of_several_uploads_prompts_and_number_must_fit(client: TestClient, mp4: bytes) -> None:
    files = [("video", ("a.mp4", mp4))] * 3
    answer = client.post("/v1/rewards", files=files, data={"prompt": [TEXT, TEXT]})
    assert error(answer) == (422, None)
    assert "a prompt per video or one for all, got 2 for 3 videos" in answer.text
    assert client.post("/v1/rewards", files=files * 3, data={"prompt": TEXT}).status_code == 400


def test_old_results_are_deleted_although_nobody_asks(engine: LocalEngine, tmp_path: Path) -> None:
    limits = SMALL.__class__(**{**vars(SMALL), "keep_s": 0.2})
    with TestClient(local_app(engine, OFFER, tmp_path, limits), headers=HEADERS) as client:
        client.post("/v1/videos", json={"prompt": TEXT})
        end = time.monotonic() + 180
        while [*tmp_path.iterdir()]:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_a_score_that_is_no_number_is_a_fault_of_the_model(
    client: TestClient, engine: LocalEngine, mp4: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken:
        dimensions = ("taste",)

        def score(self, videos: Any, prompts: Any) -> list[Score]:
            return [Score({"taste": float("nan")}, float("nan")) for _ in videos]

    monkeypatch.setattr(engine.scorers["moving_shapes"], "_model", Broken())
    answer = client.post("/v1/rewards", files={"video": mp4}, data={"prompt": TEXT})
    assert error(answer) == (500, "unscorable")
    assert "no number" in answer.text


@pytest.mark.parametrize(
    "path", ["../etc/passwd", "%2e%2e%2f%2e%2e%2fx", "..%5cx", "%00", "x" * 5000]
)
def test_ids_that_are_paths_lead_nowhere(client: TestClient, tmp_path: Path, path: str) -> None:
    (tmp_path / "x.mp4").write_bytes(b"secret")
    for answer in (
        client.get(f"/v1/videos/{path}"),
        client.get(f"/v1/videos/{path}/content"),
        client.delete(f"/v1/videos/{path}"),
    ):
        assert answer.status_code in (404, 405)
    assert (tmp_path / "x.mp4").exists()


def test_a_full_queue_is_429_with_when_to_come_again(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = asyncio.Event()

    async def hold(tasks: Any) -> Any:
        await held.wait()
        return []

    monkeypatch.setattr(engine, "sample", hold)
    limits = SMALL.__class__(**{**vars(SMALL), "max_queued": 2})
    with TestClient(local_app(engine, OFFER, tmp_path, limits), headers=HEADERS) as client:
        answers = [client.post("/v1/videos", json={"prompt": TEXT}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 200, 429]
        assert error(answers[4]) == (429, "queue_full")
        assert int(answers[4].headers["Retry-After"]) >= 1
        first, *_, last = [answer.json()["id"] for answer in answers[:4]]
        assert client.get(f"/v1/videos/{first}").json()["status"] == "in_progress"
        assert error(client.get(f"/v1/videos/{first}/content")) == (409, "video_not_ready")
        client.delete(f"/v1/videos/{last}")  # which makes room
        assert client.post("/v1/videos", json={"prompt": TEXT}).status_code == 200


def test_a_fault_is_500_without_its_reason(
    engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(tasks: Any) -> Any:
        raise ValueError("secret of ours")

    monkeypatch.setattr(engine, "sample", fail)
    app = local_app(engine, OFFER, tmp_path)
    with TestClient(app, headers=HEADERS, raise_server_exceptions=False) as client:
        answer = client.post("/v1/videos/sync", json={"prompt": TEXT})
        assert error(answer) == (500, "server_error")
        assert "secret" not in answer.text
        video_id = client.post("/v1/videos", json={"prompt": TEXT}).json()["id"]
        found = client.get(f"/v1/videos/{video_id}").json()
    assert (found["status"], found["error"]["code"]) == ("failed", "server_error")


def test_openapi_says_what_requests_may_have(client: TestClient) -> None:
    found = client.get("/openapi.json").json()
    body = found["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert body["application/json"] == body["multipart/form-data"]
    assert {"prompt", "size", "lora"} <= body["application/json"]["schema"]["properties"].keys()
    assert "$ref" not in json.dumps(body)
    assert "429" in found["paths"]["/v1/rewards"]["post"]["responses"]
    asks = {
        path: "security" in route["get"] for path, route in found["paths"].items() if "get" in route
    }
    assert not asks["/health"] and not asks["/ready"] and asks["/v1/models"]

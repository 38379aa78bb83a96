"""One server on Ray Serve: the `openai` client, adapters, rewards, limits, and rude clients."""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
from ray import serve

from actors.serving.ingress import Site
from actors.serving.start import APP, Address, check_address, serving
from tests.serving import HEADERS, TEXT, TOKEN, aligned_run, error, small_recipe
from videorl.api import sample
from videorl.data.video_io import encode_mp4
from videorl.errors import ConfigError
from videorl.recipes.reading import load_rewards
from videorl.rewards import load
from videorl.serving.guards import digest_of
from videorl.serving.limits import ServingLimits
from videorl.serving.policy import Served
from videorl.serving.requests import Offer
from videorl.serving.work import Replicas

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@dataclass
class Server:
    url: str
    runs: dict[str, Path]
    results: Path

    def expected(self, adapter: str, seed: int) -> bytes:
        """Return the mp4 that `videorl sample` writes."""
        lora = None if adapter == "base" else self.runs[adapter] / "aligned"
        ((video,),) = sample(TEXT, self.runs["first"] / "config.yaml", lora=lora, seed=seed)
        return encode_mp4(video)


@pytest.fixture(scope="module")
def server(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("serving")
    runs = {name: aligned_run(root / name, seed) for seed, name in enumerate(("first", "second"))}
    adapters = {name: str(run / "aligned") for name, run in runs.items()}
    recipe = small_recipe()
    (reward,) = load_rewards(["moving_shapes"], None)
    # More than a replica keeps in memory.
    adapters |= {f"{name}_{n}": adapters[name] for n in range(4) for name in runs}
    adapters["changed"] = adapters["first"]
    names = (*adapters, "base")
    offer = Offer("shapes", recipe.sampling, names, rewards=("moving_shapes",))
    limits = ServingLimits(max_queued=2, max_upload_mib=1, upload_s=2, max_steps=100)
    site = Site(offer, root / "served", limits, Replicas(videos=2), digest_of(TOKEN))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address(port=taken.getsockname()[1])
        with pytest.raises(ConfigError, match=r"cannot be listened on .*--port"):
            check_address(address)
    served = Served(recipe, adapters, {"changed": "0" * 64})
    with serving(served, [reward], site, address):
        yield Server(address.url, runs, site.results)
    assert not serve.status().applications


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers=HEADERS, timeout=60) as client:
        yield client


def test_the_openai_client_works_and_videos_equal_those_of_the_command(server: Server) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # OpenAI closes its own service
        client = openai.OpenAI(api_key=TOKEN, base_url=f"{server.url}/v1", max_retries=0)
        ids: list[str] = []
        for adapter in ("base", "second", "first"):
            made = client.videos.create_and_poll(
                prompt=TEXT,
                # The client types `size` as OpenAI's own sizes.
                extra_body={"size": "32x32", "seed": 7, "lora": {"name": adapter}},
                poll_interval_ms=20,
            )
            assert made.status == "completed"
            content = client.videos.download_content(made.id).read()
            assert content == server.expected(adapter, 7), adapter
            ids.append(made.id)
        assert [video.id for video in client.videos.list(limit=2)] == ids[::-1]
        assert client.videos.delete(ids[0]).deleted
        with pytest.raises(openai.NotFoundError, match="no such video"):
            client.videos.retrieve(ids[0])
        with pytest.raises(openai.UnprocessableEntityError, match="at most 10000 characters"):
            client.videos.create(prompt="x" * 100_000)
        with pytest.raises(openai.UnprocessableEntityError, match="multiples of 16"):
            client.videos.create(prompt=TEXT, extra_body={"size": "33x32"})
        with pytest.raises(openai.NotFoundError, match=r"there are first, second, .*base"):
            client.videos.create(prompt=TEXT, extra_body={"lora": "third"})
        with pytest.raises(openai.AuthenticationError, match="VIDEORL_TOKEN"):
            openai.OpenAI(api_key="wrong", base_url=f"{server.url}/v1").models.list()


def test_an_upload_is_scored_as_the_model_scores_the_file(
    server: Server, http: httpx.Client, tmp_path: Path
) -> None:
    content = server.expected("base", 7)
    (tmp_path / "video.mp4").write_bytes(content)
    model: Any = load("moving_shapes")
    (wanted,) = model.score([tmp_path / "video.mp4"], [TEXT])
    answer = http.post("/v1/rewards", data={"prompt": TEXT}, files={"video": content})
    assert answer.json()["scores"]["moving_shapes"]["total"] == wanted.total
    answer = http.post("/v1/rewards", data={"prompt": TEXT}, files={"video": content[:700]})
    assert answer.status_code == 422
    big = {"video": b"x" * 5 * 2**20}
    assert http.post("/v1/rewards", data={"prompt": TEXT}, files=big).status_code == 413


def test_more_requests_than_may_wait_get_429(http: httpx.Client) -> None:
    fields = {"prompt": TEXT, "num_inference_steps": 100}
    answers = [http.post("/v1/videos", json=fields) for _ in range(9)]
    codes = [answer.status_code for answer in answers]
    assert codes[:2] == [200, 200]
    assert 429 in codes
    assert int(answers[codes.index(429)].headers["Retry-After"]) >= 1
    for answer in answers:
        if answer.status_code == 200:
            http.delete(f"/v1/videos/{answer.json()['id']}")


def test_slow_and_broken_clients_hold_up_nobody(server: Server, http: httpx.Client) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/videos HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    sockets = [socket.create_connection((host, int(port)), 30) for _ in range(20)]
    for number, each in enumerate(sockets):
        each.sendall(head.encode() + b'{"prompt"' if number % 2 else b"POST /v1/vid")
    answer = http.post("/v1/videos/sync", json={"prompt": TEXT})
    assert answer.status_code == 200
    assert b" 408 " in sockets[1].recv(200)
    for each in sockets:
        each.close()
    assert http.get("/ready").json() == {"status": "ready"}


def test_ids_that_are_paths_lead_nowhere(server: Server, http: httpx.Client) -> None:
    for path in ("..%2fconfig.yaml", "%2e%2e%2f%2e%2e%2fx", "....//x"):
        assert http.get(f"/v1/videos/{path}").status_code == 404
        assert http.delete(f"/v1/videos/{path}").status_code in (404, 405)
    assert (server.runs["first"] / "config.yaml").exists()
    assert {path.suffix for path in server.results.iterdir()} <= {".json", ".mp4"}


def test_adapters_that_were_put_out_of_memory_come_back(server: Server, http: httpx.Client) -> None:
    expected = {name: server.expected(name, 7) for name in server.runs}
    for name in [f"{run}_{n}" for n in range(4) for run in server.runs] + ["base", "first"]:
        fields = {"prompt": TEXT, "seed": 7, "lora": name}
        content = http.post("/v1/videos/sync", json=fields).content
        if name != "base":
            assert content == expected[name.partition("_")[0]], name
    answer = http.post("/v1/videos/sync", json={"prompt": TEXT, "lora": "changed"})
    assert error(answer) == (503, "adapter_unavailable")


def replicas_of(deployment: str) -> int:
    states = serve.status().applications[APP].deployments[deployment].replica_states
    return {str(state): count for state, count in states.items()}.get("RUNNING", 0)


def test_more_replicas_come_while_requests_wait(http: httpx.Client) -> None:
    fields = {"prompt": TEXT, "num_inference_steps": 100}
    end, ids = time.monotonic() + 200, []
    while replicas_of("videos") < 2:
        assert time.monotonic() < end
        answer = http.post("/v1/videos", json=fields)
        if answer.status_code == 200:
            ids.append(answer.json()["id"])
        time.sleep(0.5)
    for video_id in ids:
        http.delete(f"/v1/videos/{video_id}")


def kill_replicas(deployment: str) -> None:
    """Kill the processes of a deployment as a fault would, those of this test's Ray alone."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if f"ServeReplica:{APP}:{deployment}" in " ".join(process.cmdline()):
                process.kill()


def until(http: httpx.Client, video_id: str, status: set[str]) -> dict[str, Any]:
    end = time.monotonic() + 200
    while time.monotonic() < end:
        with suppress(httpx.HTTPError):
            answer = http.get(f"/v1/videos/{video_id}")
            if answer.status_code == 200 and answer.json()["status"] in status:
                return answer.json()
        time.sleep(0.1)
    raise AssertionError(f"{video_id} is not {status}")


@pytest.mark.parametrize(
    ("deployment", "code"), [("videos", "replica_lost"), ("ingress", "server_restarted")]
)
def test_a_part_that_dies_leaves_no_video_in_progress_and_is_replaced(
    http: httpx.Client, deployment: str, code: str
) -> None:
    fields = {"prompt": TEXT, "num_inference_steps": 100}
    video_id = http.post("/v1/videos", json=fields).json()["id"]
    until(http, video_id, {"in_progress"})
    kill_replicas(deployment)
    found = until(http, video_id, {"failed", "completed"})
    assert (found["status"], found["error"]["code"]) == ("failed", code)
    video_id = http.post("/v1/videos", json={"prompt": TEXT}).json()["id"]
    until(http, video_id, {"completed"})


def test_metrics_are_those_of_ray(http: httpx.Client) -> None:
    deadline = time.monotonic() + 180
    while 'route="/v1/videos/sync"' not in (text := http.get("/metrics").text):
        assert time.monotonic() < deadline, text[:500]
        time.sleep(0.5)  # until Ray's agent has them next
    assert "ray_videorl_serve_answers" in text
    assert "ray_serve_" in text

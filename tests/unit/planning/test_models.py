"""Configurations: where they come from, and what is said when they cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from videorl.errors import CheckpointError
from videorl.planning.models import read_configs
from videorl.planning.published import PUBLISHED

Answer = Callable[[int, str], None]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Answer]:
    """Stand for the hub with a server on this machine, which always answers the same."""
    from huggingface_hub import constants

    answer = {"status": 404, "code": "RepoNotFound"}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(int(answer["status"]))
            self.send_header("X-Error-Code", str(answer["code"]))
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield lambda status, code: answer.update(status=status, code=code)
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "RepoNotFound", "does not exist"),
        (401, "GatedRepo", "gated: accept its terms"),
        (404, "EntryNotFound", "no diffusers pipeline"),
    ],
)
def test_what_the_hub_refuses_is_said(hub: Answer, status: int, code: str, said: str) -> None:
    hub(status, code)
    with pytest.raises(CheckpointError, match=said):
        read_configs("nobody/nothing")


def test_no_hub_at_all(hub: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="offline, or a timeout"):
        read_configs("nobody/nothing")


def test_known_models_need_no_hub() -> None:
    configs = read_configs("Wan-AI/Wan2.1-T2V-14B-Diffusers")
    assert configs.parts["transformer"]["num_layers"] == 40
    assert set(PUBLISHED) == {name.lower() for name in PUBLISHED}


def test_configurations_alone_are_enough(tmp_path: Path) -> None:
    known = PUBLISHED["thudm/cogvideox-2b"]
    for key, name in (
        ("index", "model_index.json"),
        ("scheduler", "scheduler/scheduler_config.json"),
        ("transformer", "transformer/config.json"),
        ("vae", "vae/config.json"),
        ("text_encoder", "text_encoder/config.json"),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(known[key]))
    configs = read_configs(str(tmp_path))
    assert not configs.is_exact
    assert configs.parts["transformer"] == known["transformer"]


def test_no_such_folder() -> None:
    with pytest.raises(CheckpointError, match="there is no folder"):
        read_configs("./nowhere")

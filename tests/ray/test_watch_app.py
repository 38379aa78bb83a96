"""The run page as a Ray Serve application."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.request import urlopen

import pytest
from ray import serve
from websockets.sync.client import connect

from tests.watched_runs import make_run
from videorl.errors import ConfigError

pytestmark = pytest.mark.ray


@pytest.mark.usefixtures("cluster")
def test_the_page_and_its_videos_are_served_under_a_prefix(tmp_path: Path) -> None:
    from actors.watch import app

    root = make_run(tmp_path / "run", 1, num_frames=2)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(app({"folder": str(root)}), name="watch", route_prefix="/watch")
        url = f"http://127.0.0.1:{port}/watch"
        page = urlopen(f"{url}/?tab=gallery").read().decode()
        assert "a blue ball" in page
        video = "archive/videos/step-000000/r000000-p000001-c02.mp4"
        assert f"/watch/files/{video}" in page
        assert '"/watch/_nicegui' in page
        place = f"ws://127.0.0.1:{port}/watch/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        with connect(place) as connection:
            assert str(connection.recv(timeout=120)).startswith('0{"sid"')
        assert urlopen(f"{url}/files/{video}").read() == (root / video).read_bytes()
    finally:
        serve.shutdown()


@pytest.mark.parametrize("arguments", [{}, {"folder": "runs"}, {"folder": "/runs", "colour": "x"}])
def test_arguments_that_it_does_not_take(arguments: dict[str, str]) -> None:
    from actors.watch import app

    with pytest.raises(ConfigError, match="takes one argument, folder=/absolute/path"):
        app(arguments)

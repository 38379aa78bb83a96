"""What all our pages share: the server, its files, the path prefix, the heading, light and dark.

    app = build("my page", {"runs": Path("runs")}, pages)
    serve(app, "127.0.0.1", 8080, prefix="")

Pages are made with NiceGUI, which brings Vue, Quasar and ECharts in its package: a browser asks
nothing of other hosts. Its state is the process's: `build` is called once per process. Tailwind is
off; pages use Quasar's classes and those of `frame.css`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL
from functools import partial
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn
from fastapi import FastAPI, HTTPException
from nicegui import ui
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import FileResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from videorl.errors import ConfigError, VideorlError

LOOPBACK = "127.0.0.1"
KINDS = frozenset({".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif", ".png", ".jpg", ".jpeg"})
"""Suffixes of the files that are handed out; everything else in a folder stays where it is."""
_HERE = Path(__file__).parent


def build(
    title: str, folders: Mapping[str, Path], pages: Callable[[FastAPI], None], **options: Any
) -> FastAPI:
    """Return an application with pages, and with the videos and pictures of some folders.

    Args:
        title: Of the browser's window, where a page has none of its own.
        folders: Name -> folder. `address("/NAME/below/it.mp4")` is the address of a file below it.
        pages: Registers pages with `@ui.page`, and other routes with the application it is given.
        options: For `nicegui.ui.run_with`.
    """
    app = FastAPI(title=title, openapi_url=None)
    app.add_middleware(TidyForwardedPrefix)
    for name, folder in folders.items():
        _hand_out(app, name, folder.resolve())
    pages(app)
    style, script = (_HERE.joinpath(name).read_text("utf-8") for name in ("frame.css", "frame.js"))
    ui.add_head_html(f"<style>{style}</style><script>{script}</script>", shared=True)
    settings = {"dark": None, "tailwind": False, "show_welcome_message": False, **options}
    # The scripts are packed anew for every browser: level 9 takes twice the time for 5 % less.
    packed = partial(GZipMiddleware, minimum_size=1000, compresslevel=4)
    # Last: the mount at / takes whatever no earlier route did.
    ui.run_with(app, title=title, gzip_middleware_factory=packed, **settings)
    return app


def _hand_out(app: FastAPI, name: str, folder: Path) -> None:
    def file(path: str) -> FileResponse:
        """Answer with a file below the folder, or with the range of it that was asked for."""
        try:
            found = (folder / path).resolve()
            is_there = found.suffix.lower() in KINDS and found.is_file()
        except (OSError, ValueError):  # a name that no file can have
            raise HTTPException(404, "no such file") from None
        # Resolved: a link that leads out of the folder is as foreign as `..`.
        if not is_there or not found.is_relative_to(folder):
            raise HTTPException(404, "no such file")
        return FileResponse(found, headers={"X-Content-Type-Options": "nosniff"})

    app.add_api_route(f"/{name}/{{path:path}}", file, methods=["GET", "HEAD"])


def address(path: str) -> str:
    """Return the address of a quoted path of this server for the browser of the current page.

    It holds no quotes, brackets or blanks, whatever a header says.
    """
    request = ui.context.client.request
    # Tidied before by `TidyForwardedPrefix`.
    forwarded = request.headers.get("X-Forwarded-Prefix", "")
    return f"{forwarded}{_quoted(request.scope.get('root_path', '').rstrip('/'))}{path}"


def _quoted(path: str) -> str:
    return quote(path, safe="/:@!$&()*+,;=%")


def _parts(path: str) -> list[str]:
    """Return the quoted parts of a path, without those that are empty or lead up."""
    return [_quoted(part) for part in path.split("/") if part not in ("", ".", "..")]


class TidyForwardedPrefix:
    """Passes the header `X-Forwarded-Prefix` on as a quoted path of this host, once, or not at all.

    A proxy that says the path below which it shows us, and `--prefix`, which says the same, do not
    add up; nor can a header make addresses lead to another host, or end an attribute of the page.
    """

    _NAME = b"x-forwarded-prefix"

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in ("http", "websocket"):
            said = [value for name, value in scope["headers"] if name == self._NAME]
            if said:
                others = [row for row in scope["headers"] if row[0] != self._NAME]
                path = self._path(said[0].decode("latin-1"), scope.get("root_path", ""))
                added = [(self._NAME, path.encode("ascii"))] if path else []
                scope = {**scope, "headers": others + added}
        await self.app(scope, receive, send)

    @staticmethod
    def _path(said: str, root_path: str) -> str:
        path = "".join(f"/{part}" for part in _parts(said))
        return path.removesuffix(_quoted(root_path.rstrip("/")))


class UnderPrefix:
    """An application as it is seen below a path prefix, `/lab/watch` for instance.

    Proxies differ: some pass the whole path on, others cut the prefix off. Both are understood.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] in ("http", "websocket"):
            path = scope["path"]
            is_whole = path == self._prefix or path.startswith(f"{self._prefix}/")
            # By ASGI's specification `path` begins with `root_path`.
            whole = path if is_whole else self._prefix + path
            scope = {**scope, "root_path": self._prefix, "path": whole}
        await self.app(scope, receive, send)


def serve(app: FastAPI, host: str, port: int, prefix: str = "") -> None:
    """Serve until Ctrl-C, and say where.

    Args:
        app: What `build` returned.
        host: A name or address of this machine; `LOOPBACK` = for this machine alone.
        port: 0 = any free one.
        prefix: Path below which a proxy shows the pages, such as `/lab/watch`; empty = none.

    Raises:
        ConfigError: The prefix is no path, or the port no number of a port.
        VideorlError: The port is taken, or the address is not this machine's.
    """
    if prefix and prefix != "".join(f"/{part}" for part in _parts(prefix)):
        raise ConfigError(f"--prefix must look like /lab/watch, got {prefix!r}")
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port must be 0 to 65535, got {port}")
    listening = _listen(host, port)
    number = listening.getsockname()[1]
    shown = f"[{host}]" if ":" in host else host
    print(f"open http://{shown}:{number}{prefix}/ in a browser; Ctrl-C ends this", flush=True)
    wrapped = UnderPrefix(app, prefix) if prefix else app
    config = uvicorn.Config(wrapped, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()
    except OSError as error:
        listening.close()
        remedy = {
            EADDRINUSE: f"something else listens there; try --port {port + 1}, or 0 for a free one",
            EACCES: "ports below 1024 are the system's; try --port 8080",
            EADDRNOTAVAIL: "that is no address of this machine; try --host 127.0.0.1",
        }.get(error.errno or 0, str(error.strerror or error))
        raise VideorlError(f"cannot listen on {host} port {port}: {remedy}") from error
    return listening


@contextmanager
def layout(title: str, *, back: str = "") -> Iterator[None]:
    """Put what is made in the block under a heading with a switch between light and dark.

    Args:
        title: The heading, and the title of the browser's window.
        back: Path of the page that the heading leads back to; empty = none.
    """
    ui.page_title(title)
    with ui.header().classes("frame-header"):
        if back:
            ui.button(icon="arrow_back").props("flat round dense").on(
                "click", js_handler=f"() => location.assign({json.dumps(address(back))})"
            ).tooltip("back")
        ui.label(title).classes("frame-title")
        ui.space()
        switch = ui.button(icon="contrast").props('flat round dense aria-label="light or dark"')
        # In the browser alone: it also remembers the choice, and no cookie is needed.
        switch.on("click", js_handler="() => videorlFrame.switchDark()").tooltip("light or dark")
    with ui.column().classes("frame-body"):
        yield


def first_paint(title: str, html: str) -> None:
    """Let the browser show something of the current page before its scripts are there.

    It is taken away when the page itself is drawn, in `frame.js`.

    Args:
        title: The heading.
        html: What is below it; videos in it are not loaded.
    """
    plain = html.replace('preload="metadata"', 'preload="none"')
    ui.add_body_html(
        '<div id="first-paint"><script>videorlFrame.darkAtOnce()</script>'
        f'<div class="frame-header row"><div class="frame-title">{escape(title)}</div></div>'
        f'<div class="frame-body">{plain}</div></div>'
    )

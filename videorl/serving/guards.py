"""What stands before every route: the token, and how much of a body is read."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse

from videorl.serving.errors import OUR_FAULT, RequestError
from videorl.serving.limits import MAX_BODY, ServingLimits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/ready")
"""Paths that need no token."""
UPLOADS = ("/v1/rewards",)
"""Paths whose bodies may be as large as an upload."""


def digest_of(token: str) -> bytes:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def refusal(error: RequestError) -> JSONResponse:
    """Return the answer that says what is wrong."""
    return JSONResponse(error.body(), error.status, error.headers())


class Guard:
    """ASGI middleware.

    Args:
        app: What is behind it.
        limits: `max_upload_mib` and `upload_s` are used.
        token: SHA-256 of the token that requests must bring; None = they need none.
        observe: Is told of every answer: a name of the route, the status, seconds.
    """

    def __init__(
        self,
        app: App,
        limits: ServingLimits,
        token: bytes | None,
        observe: Callable[[str, int, float], None],
    ) -> None:
        self._app, self._limits, self._token, self._observe = app, limits, token, observe

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer what is refused; hand on the rest, with a body that cannot exceed its bound."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started, status = time.monotonic(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if (error := self._refused(scope)) is not None:
                return await refusal(error)(scope, receive, watched)
            await self._app(scope, self._bounded(scope, receive), watched)
        finally:
            self._observe(_route(scope["path"]), status, time.monotonic() - started)

    def _refused(self, scope: Message) -> RequestError | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if self._token is None and (error := _foreign(headers)) is not None:
            return error
        if self._token is not None and scope["path"] not in OPEN:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            found = hashlib.sha256(given.strip()).digest()
            if scheme.lower() != b"bearer" or not hmac.compare_digest(found, self._token):
                return RequestError(
                    "no valid token: send the header `Authorization: Bearer TOKEN` with the token "
                    "that `videorl serve` printed, or that VIDEORL_TOKEN was when it started",
                    status=401,
                    code="invalid_api_key",
                )
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 18:
            return RequestError("Content-Length is no number of bytes", status=400)
        return _too_large(most) if int(length) > (most := self._most(scope)) else None

    def _most(self, scope: Message) -> int:
        return self._limits.upload_bytes if scope["path"] in UPLOADS else MAX_BODY

    def _bounded(self, scope: Message, receive: Receive) -> Receive:
        most, num_bytes = self._most(scope), 0
        end, is_whole = time.monotonic() + self._limits.upload_s, False

        async def bounded() -> Message:
            nonlocal num_bytes, is_whole
            if is_whole:  # what comes now is that the client leaves
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                raise RequestError(
                    f"the body of the request did not come within {self._limits.upload_s:g} s",
                    status=408,
                    code="request_timeout",
                ) from None
            num_bytes += len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if num_bytes > most:
                raise _too_large(most)
            return message

        return bounded


def _foreign(headers: dict[bytes, bytes]) -> RequestError | None:
    """Return the refusal of what a browser sends for the page of another host.

    Without a token nothing else tells such a page, which may even have a name that leads to this
    machine, from its user.
    """
    for name, place in ((b"host", "//"), (b"origin", "")):
        value = headers.get(name)
        if value is None:
            continue
        try:
            host = urlsplit(place + value.decode("latin-1")).hostname or ""
            is_ours = host == "localhost" or ip_address(host).is_loopback
        except ValueError:
            is_ours = False
        if not is_ours:
            return RequestError(
                f"a server without a token answers requests to localhost alone, and none of web "
                f"pages: the header {name.decode().title()} names another host",
                status=403,
                code="foreign_host",
            )
    return None


def _too_large(most: int) -> RequestError:
    remedy = "send less" if most == MAX_BODY else "or start the server with --max-upload-mib"
    return RequestError(
        f"the body of a request to this route may have {most} bytes, this has more: {remedy}",
        status=413,
        code="request_too_large",
    )


def _route(path: str) -> str:
    """Return a name of a path; there are few, so that metrics stay few."""
    path = re.sub(r"/video_[0-9a-f]{32}(?=/|$)", "/{video_id}", path)
    known = {"/v1/videos", "/v1/videos/sync", "/v1/videos/{video_id}", "/v1/rewards", "/v1/models"}
    known |= {"/v1/videos/{video_id}/content", "/metrics", "/openapi.json", *OPEN}
    return path if path in known else "other"


def broken() -> JSONResponse:
    """Return the answer to a request that met a fault of ours, which the log has."""
    error = RequestError("this is a fault of the server, whose log has the reason", status=500)
    error.code = OUR_FAULT
    return refusal(error)

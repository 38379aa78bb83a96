"""Read the body of a request, JSON or a form, into plain fields."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.requests import Request

from videorl.serving.errors import RequestError

MAX_FIELDS = 64
_UTF_8 = (b"utf-8", b"utf8", b"us-ascii")


async def read_body(request: Request) -> dict[str, Any]:
    """Return the fields of a request for a video.

    Raises:
        RequestError: The body is neither JSON nor a form, or damaged; it has a file.
    """
    kind, _ = _content_type(request)
    if kind == "application/json" or kind.endswith("+json"):
        return _object(await request.body())
    fields = await read_form(request)
    for name, value in fields.items():
        if isinstance(value, UploadFile):
            raise RequestError(
                f"{name} is a file: this server makes videos of texts alone", param=name
            )
    return fields


async def read_form(
    request: Request, *, several: Collection[str] = (), max_files: int = 1
) -> dict[str, Any]:
    """Return the fields of a form: texts and `UploadFile`s; `a[b]=c` is `{"a": {"b": "c"}}`.

    Args:
        request: Has the form.
        several: Fields that may be given more than once; their values are lists.
        max_files: Files that it may have.

    Raises:
        RequestError: It is no form, is damaged, not in UTF-8, or has another field twice.
    """
    kind, parameters = _content_type(request)
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise RequestError(
            f"Content-Type must be application/json or multipart/form-data, got {kind[:80]!r}",
            status=415,
            code="unsupported_content_type",
        )
    # Python has codecs that take minutes for a megabyte, and some that make what is no text.
    if (charset := parameters.get(b"charset", b"utf-8")).lower() not in _UTF_8:
        raise RequestError(
            f"the charset of a form must be utf-8, got {charset[:40].decode('latin-1')!r}",
            status=415,
            code="unsupported_charset",
        )
    form = await request.form(max_files=max_files, max_fields=MAX_FIELDS)
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
        if key in several:
            fields.setdefault(key, []).append(value)
            continue
        name, *inner = re.findall(r"^[^\[\]]+|(?<=\[)[^\[\]]*(?=\])", key) or [key]
        place = fields
        for part in inner:
            place, name = place.setdefault(name, {}), part
            if not isinstance(place, dict):
                raise RequestError(f"{key[:80]} contradicts another field", param=key[:80])
        if name in place:
            raise RequestError(f"{key[:80]} is given twice", param=key[:80])
        place[name] = value
    return fields


def parse_json(text: str | bytes, what: str) -> Any:
    """Return what JSON says.

    Raises:
        ValueError: It is none, nested too deeply, or has half a character (a lone surrogate).
    """
    try:
        found = json.loads(text)
        json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        why = "half a character in it" if isinstance(error, UnicodeEncodeError) else error
        raise ValueError(f"{what} is not JSON: {why}") from error
    return found


def _content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    kind, parameters = parse_options_header(request.headers.get("content-type", ""))
    return kind.decode("latin-1"), parameters


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = parse_json(body, "the body")
    except ValueError as error:
        raise RequestError(str(error), status=400) from error
    if not isinstance(found, dict):
        raise RequestError(
            f"the body must be a JSON object with `prompt`, got a {type(found).__name__}",
            status=400,
        )
    return cast("dict[str, Any]", found)

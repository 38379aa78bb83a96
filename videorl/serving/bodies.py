"""Read the body of a request, JSON or a form, into plain fields."""

from __future__ import annotations

import json
import re
from typing import Any, cast

from starlette.datastructures import UploadFile
from starlette.requests import Request

from videorl.serving.errors import RequestError

MAX_FIELDS = 64


async def read_body(request: Request) -> dict[str, Any]:
    """Return the fields of a request for a video.

    Raises:
        RequestError: The body is neither JSON nor a form, or damaged; it has a file.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _json(await request.body())
    fields = await read_form(request, kind)
    for name, value in fields.items():
        if isinstance(value, UploadFile):
            raise RequestError(
                f"{name} is a file: this server makes videos of texts alone", param=name
            )
    return fields


async def read_form(request: Request, kind: str = "") -> dict[str, Any]:
    """Return the fields of a form: texts and `UploadFile`s; `a[b]=c` is `{"a": {"b": "c"}}`.

    Raises:
        RequestError: It is no form, is damaged, or has a field twice.
    """
    kind = kind or request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/x-www-form-urlencoded"):
        raise RequestError(
            f"Content-Type must be application/json or multipart/form-data, got {kind[:80]!r}",
            status=415,
            code="unsupported_content_type",
        )
    form = await request.form(max_files=1, max_fields=MAX_FIELDS)
    fields: dict[str, Any] = {}
    for key, value in form.multi_items():
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


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"the body is not JSON: {error}", status=400) from error
    if not isinstance(found, dict):
        raise RequestError(
            f"the body must be a JSON object with `prompt`, got a {type(found).__name__}",
            status=400,
        )
    return cast("dict[str, Any]", found)

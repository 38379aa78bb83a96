"""What the description of the HTTP side says of bodies and refusals."""

from __future__ import annotations

from typing import Any

from videorl.serving.limits import MAX_PROMPT
from videorl.serving.requests import FIELDS

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def may(*statuses: int) -> dict[int | str, Any]:
    """Return that a route may refuse with any of some statuses."""
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": "refused", "content": content} for status in statuses}


ERRORS = may(400, 401, 404, 408, 409, 413, 415, 422, 429)


def _whole(schema: Any, parts: dict[str, Any]) -> Any:
    """Return a schema with its parts in their places: OpenAPI has no `$defs` of an operation."""
    if isinstance(schema, list):
        return [_whole(each, parts) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if isinstance(reference := schema.get("$ref"), str):
        return _whole(parts[reference.rpartition("/")[2]], parts)
    return {name: _whole(value, parts) for name, value in schema.items() if name != "$defs"}


_FIELDS = FIELDS.json_schema()
_INLINE: dict[str, Any] = {"schema": _whole(_FIELDS, _FIELDS.get("$defs", {}))}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": _INLINE, "multipart/form-data": _INLINE},
    }
}
_FORM = {
    "type": "object",
    "required": ["video", "prompt"],
    "properties": {
        "video": {"type": "string", "format": "binary"},
        "prompt": {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT},
        "models": {"type": "string", "description": "names with commas between; default: all"},
    },
    "additionalProperties": False,
}
UPLOAD: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}

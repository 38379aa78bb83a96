"""What the description of the HTTP side says of bodies and refusals."""

from __future__ import annotations

from typing import Any, get_args

from videorl.serving.limits import MAX_PROMPT, MAX_UPLOADS
from videorl.serving.requests import FIELDS
from videorl.serving.results import Status

_TEXT, _WHOLE_NUMBER, _NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_TIME_OR_NULL = {"type": ["integer", "null"]}


def _object(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with exactly these properties."""
    return {
        "type": "object",
        "required": [*properties],
        "properties": properties,
        "additionalProperties": False,
    }


def _list(each: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": each}


_ERROR = _object(
    error=_object(message=_TEXT, type=_TEXT, param=_TEXT_OR_NULL, code=_TEXT_OR_NULL),
)
_VIDEO = _object(
    object={"const": "video"},
    id={"type": "string", "pattern": "^video_[0-9a-f]{32}$"},
    status={"enum": [*get_args(Status)]},
    progress={"type": "integer", "minimum": 0, "maximum": 100},
    model=_TEXT,
    prompt=_TEXT,
    size={"type": "string", "pattern": "^[0-9]+x[0-9]+$"},
    seconds=_TEXT,
    num_frames=_WHOLE_NUMBER,
    fps=_NUMBER,
    num_inference_steps=_WHOLE_NUMBER,
    guidance_scale=_NUMBER,
    seed=_WHOLE_NUMBER,
    created_at=_WHOLE_NUMBER,
    expires_at=_WHOLE_NUMBER,
    completed_at=_TIME_OR_NULL,
    error={"anyOf": [_object(message=_TEXT, code=_TEXT), {"type": "null"}]},
)
_SCORE = _object(total=_NUMBER, dimensions={"type": "object", "additionalProperties": _NUMBER})
_MODEL = _object(id=_TEXT, object={"const": "model"}, created=_WHOLE_NUMBER, owned_by=_TEXT)


def _json(schema: dict[str, Any]) -> dict[int | str, Any]:
    return {200: {"content": {"application/json": {"schema": schema}}}}


def may(*statuses: int) -> dict[int | str, Any]:
    """Return that a route may refuse with any of some statuses."""
    content = {"application/json": {"schema": _ERROR}}
    return {status: {"description": "refused", "content": content} for status in statuses}


STATE = _json(_object(status={"enum": ["ok", "ready", "loading"]}))
MODELS = _json(_object(object={"const": "list"}, data=_list(_MODEL), rewards=_list(_TEXT)))
VIDEO = _json(_VIDEO)
VIDEOS = _json(
    _object(
        object={"const": "list"},
        data=_list(_VIDEO),
        has_more={"type": "boolean"},
        first_id=_TEXT_OR_NULL,
        last_id=_TEXT_OR_NULL,
    )
)
DELETED = _json(_object(id=_TEXT, object={"const": "video.deleted"}, deleted={"const": True}))
_SCORES = _object(
    object={"const": "reward.scores"},
    prompt=_TEXT,
    scores={"type": "object", "additionalProperties": _SCORE},
)
_UNSCORED = _object(
    object={"const": "reward.error"}, prompt=_TEXT, error=_ERROR["properties"]["error"]
)
SCORES = _json(
    {
        "anyOf": [
            _SCORES,
            _object(object={"const": "list"}, data=_list({"anyOf": [_SCORES, _UNSCORED]})),
        ]
    }
)
MP4: dict[int | str, Any] = {200: {"content": {"video/mp4": {}}}}
FOUND = may(401, 403, 404, 409, 422)
"""Refusals of routes that read no body."""
ERRORS = may(400, 401, 403, 404, 408, 413, 415, 422, 429, 500, 503, 507)
"""Refusals of routes that read a body and compute."""


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
        "content": dict.fromkeys(
            ("application/json", "multipart/form-data", "application/x-www-form-urlencoded"),
            _INLINE,
        ),
    }
}
_FORM = {
    "type": "object",
    "required": ["video", "prompt"],
    "properties": {
        "video": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "maxItems": MAX_UPLOADS,
        },
        "prompt": {
            "type": "array",
            "description": "of each video, or one for all",
            "items": {"type": "string", "minLength": 1, "maxLength": MAX_PROMPT},
            "minItems": 1,
            "maxItems": MAX_UPLOADS,
        },
        "models": {"type": "string", "description": "names with commas between; default: all"},
    },
    "additionalProperties": False,
}
UPLOAD: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}
}

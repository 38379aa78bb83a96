"""What `POST /v1/rewards` takes, and what it answers."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import UploadFile

from videorl.serving.errors import RequestError
from videorl.serving.limits import MAX_PROMPT
from videorl.serving.requests import Offer
from videorl.types import Score


def read_upload(fields: dict[str, Any], offer: Offer) -> tuple[UploadFile, str, list[str]]:
    """Return the upload, its prompt, and the names of the models that are to score it.

    Raises:
        RequestError: A field is unknown, missing or of another kind; a model is not loaded.
    """
    if unknown := sorted(set(fields) - {"video", "prompt", "models"}):
        raise RequestError(
            f"there is no field {unknown[0][:80]}; there are video, prompt and models",
            param=unknown[0][:80],
        )
    upload, prompt = fields.get("video"), fields.get("prompt")
    if not isinstance(upload, UploadFile):
        raise RequestError("video must be an uploaded file", param="video")
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError("prompt must say what the video is to show", param="prompt")
    if len(prompt) > MAX_PROMPT:
        raise RequestError(
            f"prompt may have {MAX_PROMPT} characters, got {len(prompt)}", param="prompt"
        )
    asked = fields.get("models", "")
    if not isinstance(asked, str):
        raise RequestError("models must be names with commas between them", param="models")
    names = [name.strip() for name in asked.split(",") if name.strip()] or [*offer.rewards]
    if unknown := [name for name in names if name not in offer.rewards]:
        known = ", ".join(offer.rewards) or "none"
        raise RequestError(
            f"reward {unknown[0][:80]!r} is not loaded here; loaded are: {known}. Rewards are "
            "loaded when the server starts (--reward NAME)",
            status=404,
            param="models",
            code="reward_not_loaded",
        )
    if not names:
        raise RequestError(
            "no reward is loaded here: start the server with --reward NAME",
            status=404,
            param="models",
            code="reward_not_loaded",
        )
    return upload, prompt, [*dict.fromkeys(names)]


def answer_of(score: Score) -> dict[str, Any]:
    """Return what clients get of a score."""
    dimensions = {name: float(value) for name, value in score.dimensions.items()}
    return {"total": float(score.total), "dimensions": dimensions}

"""What `POST /v1/rewards` takes, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import UploadFile

from videorl.serving.errors import RequestError
from videorl.serving.limits import MAX_PROMPT
from videorl.serving.requests import Offer
from videorl.types import Score

SEVERAL = ("video", "prompt")
"""Fields that a request may have more than once."""


def read_uploads(
    fields: dict[str, Any], offer: Offer
) -> tuple[list[tuple[UploadFile, str]], list[str]]:
    """Return the uploads with their prompts, and the names of the models that are to score them.

    Args:
        fields: Those of `SEVERAL` are lists.
        offer: Which models are loaded.

    Raises:
        RequestError: A field is unknown, missing or of another kind; there are neither as many
            prompts as videos, nor a single one for all; a model is not loaded.
    """
    if unknown := sorted(set(fields) - {"video", "prompt", "models"}):
        raise RequestError(
            f"there is no field {unknown[0][:80]}; there are video, prompt and models",
            param=unknown[0][:80],
        )
    uploads, prompts = fields.get("video", []), fields.get("prompt", [])
    if not uploads or not all(isinstance(upload, UploadFile) for upload in uploads):
        raise RequestError("video must be an uploaded file", param="video")
    for prompt in prompts or [""]:
        _check_prompt(prompt)
    if len(prompts) not in (1, len(uploads)):
        raise RequestError(
            f"there must be a prompt per video or one for all, got {len(prompts)} for "
            f"{len(uploads)} videos",
            param="prompt",
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
    every = prompts * len(uploads) if len(prompts) == 1 else prompts
    return [*zip(uploads, every, strict=True)], [*dict.fromkeys(names)]


def _check_prompt(prompt: object) -> None:
    if not isinstance(prompt, str) or not prompt.strip():
        raise RequestError("prompt must say what the video is to show", param="prompt")
    if len(prompt) > MAX_PROMPT:
        raise RequestError(
            f"prompt may have {MAX_PROMPT} characters, got {len(prompt)}", param="prompt"
        )


def scores_of(prompt: str, found: Mapping[str, Score]) -> dict[str, Any]:
    """Return what clients get of the scores of a video."""
    scores = {name: answer_of(score) for name, score in found.items()}
    return {"object": "reward.scores", "prompt": prompt, "scores": scores}


def list_of(
    prompts: Sequence[str], found: Sequence[Mapping[str, Score] | RequestError]
) -> dict[str, Any]:
    """Return what clients get of several videos: the scores of each, or its error."""
    data = [
        {"object": "reward.error", "prompt": prompt, **each.body()}
        if isinstance(each, RequestError)
        else scores_of(prompt, each)
        for prompt, each in zip(prompts, found, strict=True)
    ]
    return {"object": "list", "data": data}


def answer_of(score: Score) -> dict[str, Any]:
    """Return what clients get of a score."""
    dimensions = {name: float(value) for name, value in score.dimensions.items()}
    return {"total": float(score.total), "dimensions": dimensions}

"""The HTTP side: which routes there are, and what they answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from videorl import __version__
from videorl.serving.bodies import read_body, read_form
from videorl.serving.engine import Engine
from videorl.serving.errors import RequestError
from videorl.serving.guards import Guard, broken, refusal
from videorl.serving.limits import MAX_UPLOADS, ServingLimits
from videorl.serving.openapi import (
    BODY,
    DELETED,
    ERRORS,
    FOUND,
    MODELS,
    MP4,
    SCORES,
    STATE,
    UPLOAD,
    VIDEO,
    VIDEOS,
    may,
)
from videorl.serving.requests import Offer, invalid, read_fields
from videorl.serving.results import COMPLETED, FAILED, Record, Results
from videorl.serving.scores import SEVERAL, list_of, read_uploads, scores_of
from videorl.serving.work import Replicas, Work
from videorl.types import Score

logger = logging.getLogger(__name__)

_TIDY_S = 60.0


def build_app(
    engine: Engine,
    offer: Offer,
    results: Results,
    *,
    token: bytes | None,
    limits: ServingLimits,
    replicas: Replicas,
) -> FastAPI:
    """Return the application.

    Args:
        engine: Computes.
        offer: What is served.
        results: Keeps videos.
        token: SHA-256 of the token that requests must bring; None = they need none.
        limits: What requests may ask for.
        replicas: How much `engine` does at once.
    """
    work = Work(engine, offer, results, limits, replicas)
    # No pages of FastAPI: they load scripts from other hosts.
    app = FastAPI(
        title="videorl serve",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        lifespan=lambda _: _tidying(results, min(_TIDY_S, limits.keep_s)),
    )
    app.add_middleware(Guard, limits=limits, token=token, observe=engine.observe)
    app.add_exception_handler(RequestError, lambda _, error: refusal(_as(RequestError, error)))
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(ClientDisconnect, lambda *_: Response(status_code=400))
    app.add_exception_handler(Exception, _fault)
    _add_state(app, engine)
    if token is not None:  # of the routes from here on; the guard asks, this describes
        app.router.dependencies.append(Depends(HTTPBearer(auto_error=False)))
    _add_description(app, engine, offer)
    _add_videos(app, work)
    _add_results(app, work, results)
    _add_rewards(app, work, offer)
    return app


@asynccontextmanager
async def _tidying(results: Results, every_s: float) -> AsyncIterator[None]:
    async def tidy() -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                results.tidy()
            except OSError as error:
                logger.error("old results cannot be deleted (%s)", error)

    task = asyncio.create_task(tidy())
    yield
    task.cancel()


def _add_state(app: FastAPI, engine: Engine) -> None:
    @app.get("/health", summary="Whether the HTTP side answers", responses={**STATE, **may(403)})
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get(
        "/ready",
        summary="Whether the model and every reward are loaded",
        responses={**STATE, **may(403), 503: STATE[200]},
    )
    async def ready() -> JSONResponse:
        is_ready = await engine.is_ready()
        return JSONResponse(
            {"status": "ready" if is_ready else "loading"}, 200 if is_ready else 503
        )


def _add_description(app: FastAPI, engine: Engine, offer: Offer) -> None:
    started = int(time.time())

    @app.get(
        "/metrics",
        summary="What is measured, for Prometheus",
        responses={**may(401, 403, 503), 200: {"content": {"text/plain": {}}}},
        response_class=Response,
    )
    async def metrics() -> Response:
        return Response(await engine.metrics(), media_type="text/plain; version=0.0.4")

    @app.get(
        "/v1/models", summary="The model and its adapters", responses={**MODELS, **may(401, 403)}
    )
    async def models() -> dict[str, Any]:
        names = dict.fromkeys([offer.model, *offer.adapters])
        listed = [
            {"id": name, "object": "model", "created": started, "owned_by": "videorl"}
            for name in names
        ]
        return {"object": "list", "data": listed, "rewards": [*offer.rewards]}


def _add_videos(app: FastAPI, work: Work) -> None:
    @app.post(
        "/v1/videos", summary="Ask for a video", responses={**VIDEO, **ERRORS}, openapi_extra=BODY
    )
    async def create(request: Request) -> dict[str, Any]:
        task = await work.task(read_fields(await read_body(request)))
        return work.begin(task).answer()

    @app.post(
        "/v1/videos/sync",
        summary="Sample a video and wait for it",
        responses={**MP4, **ERRORS},
        openapi_extra=BODY,
        response_class=Response,
    )
    async def sync(request: Request) -> Response:
        task = await work.task(read_fields(await read_body(request)))
        content = await work.sample(task)
        headers = {"x-videorl-seed": str(task.seed), "x-videorl-adapter": task.adapter}
        return Response(content, media_type="video/mp4", headers=headers)


def _add_results(app: FastAPI, work: Work, results: Results) -> None:
    @app.get("/v1/videos", summary="List videos, the newest first", responses={**VIDEOS, **FOUND})
    async def listed(
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> dict[str, Any]:
        records = results.all()
        if order == "desc":
            records.reverse()
        ids = [record.id for record in records]
        if after is not None and after not in ids:
            raise _not_found("after")
        start = 0 if after is None else ids.index(after) + 1
        page = [record.answer() for record in records[start : start + limit]]
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        ends = {"first_id": first, "last_id": last}
        more = len(records) > start + limit
        return {"object": "list", "data": page, "has_more": more, **ends}

    @app.get(
        "/v1/videos/{video_id}", summary="What became of a video", responses={**VIDEO, **FOUND}
    )
    async def retrieve(video_id: str) -> dict[str, Any]:
        return _found(results, video_id).answer()

    @app.get(
        "/v1/videos/{video_id}/content",
        summary="The mp4",
        responses={**MP4, **FOUND},
        response_class=Response,
    )
    async def content(video_id: str, variant: Literal["video"] = "video") -> Response:
        record = _found(results, video_id)
        if record.status == FAILED:
            reason = (record.error or {}).get("message", "")
            raise RequestError(f"this video failed: {reason}", status=409, code="video_failed")
        if record.status != COMPLETED or (mp4 := results.content(video_id)) is None:
            raise RequestError(
                f"this video is {record.status}: ask for it again once it is completed",
                status=409,
                code="video_not_ready",
            )
        return Response(mp4, media_type="video/mp4")

    @app.delete(
        "/v1/videos/{video_id}",
        summary="Delete or cancel a video",
        responses={**DELETED, **FOUND},
    )
    async def delete(video_id: str) -> dict[str, Any]:
        if not work.delete(video_id):
            raise _not_found("video_id")
        return {"id": video_id, "object": "video.deleted", "deleted": True}


def _add_rewards(app: FastAPI, work: Work, offer: Offer) -> None:
    @app.post(
        "/v1/rewards",
        summary="Score a video, or several",
        responses={**SCORES, **ERRORS},
        openapi_extra=UPLOAD,
    )
    async def rewards(request: Request) -> dict[str, Any]:
        with work.taking_upload():
            fields = await read_form(request, several=SEVERAL, max_files=MAX_UPLOADS)
            uploads, models = read_uploads(fields, offer)
            asked = [(await upload.read(), prompt) for upload, prompt in uploads]
            if len(asked) == 1:
                ((content, prompt),) = asked
                return scores_of(prompt, await work.score(content, prompt, models))
            found = await asyncio.gather(*(_score(work, *each, models) for each in asked))
        return list_of([prompt for _, prompt in asked], found)


async def _score(
    work: Work, content: bytes, prompt: str, models: Sequence[str]
) -> dict[str, Score] | RequestError:
    """Return the scores of a video of several, or why it has none."""
    try:
        return await work.score(content, prompt, models)
    except RequestError as error:
        return error


def _found(results: Results, video_id: str) -> Record:
    if (record := results.get(video_id)) is None:
        raise _not_found("video_id")
    return record


def _not_found(param: str) -> RequestError:
    return RequestError(
        "there is no such video; it may have been deleted, or been too old to keep",
        status=404,
        param=param,
        code="video_not_found",
    )


def _as(kind: type[Any], error: Exception) -> Any:
    assert isinstance(error, kind)
    return error


def _http_error(_: Request, error: Exception) -> Response:
    found: HTTPException = _as(HTTPException, error)
    answer = refusal(RequestError(str(found.detail), status=found.status_code))
    answer.headers.update(found.headers or {})
    return answer


def _bad_query(_: Request, error: Exception) -> Response:
    problems = _as(RequestValidationError, error).errors()
    return refusal(invalid([{**each, "loc": each["loc"][1:]} for each in problems]))


def _fault(_: Request, error: Exception) -> Response:
    logger.error("a request failed", exc_info=error)
    return broken()

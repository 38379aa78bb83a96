"""What `POST /v1/videos` takes: the fields that vLLM-Omni and SGLang share, and what they mean."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from videorl.config import SamplingConfig
from videorl.serving.bodies import parse_json
from videorl.serving.errors import RequestError
from videorl.serving.limits import MAX_PROMPT, ServingLimits

BASE = "base"
"""Name under which a request gets the model without any adapter."""
_Side = Annotated[int, Field(ge=1, le=16384)]
_Number = Annotated[float, Field(ge=0, le=1000, allow_inf_nan=False)]
_Weight = Annotated[float, Field(allow_inf_nan=False)]
_STRICT: ConfigDict = ConfigDict(extra="forbid")
_JSON_FIELDS = ("lora", "extra_params")


@dataclass(kw_only=True)
class AdapterName:
    """An adapter as an object; paths are never taken from a request."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: str


@dataclass(kw_only=True)
class ExtraParams:
    """What no other server has: guidance by a latent reward (Flow-NRG)."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    guide: dict[str, _Weight] = field(default_factory=dict[str, float])
    """Dimension of the latent reward -> how strongly to raise it."""
    max_factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Where the factor t / (1 - t) of guidance is cut off near pure noise."""


@dataclass(kw_only=True)
class VideoFields:
    """A request for a video; what is left out is as the served recipe has it."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    prompt: Annotated[str, Field(min_length=1, max_length=MAX_PROMPT)]
    model: str | None = None
    """The served model, or one of its adapters."""
    size: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")] | None = None
    """`WIDTHxHEIGHT`, in the place of `width` and `height`."""
    width: _Side | None = None
    height: _Side | None = None
    seconds: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] | None = None
    """Length, to the nearest number of frames that the model makes; or `num_frames`, exactly."""
    num_frames: Annotated[int, Field(ge=1, le=36_000)] | None = None
    fps: Annotated[float, Field(ge=0.1, le=240, allow_inf_nan=False)] | None = None
    negative_prompt: Annotated[str, Field(max_length=MAX_PROMPT)] | None = None
    num_inference_steps: Annotated[int, Field(ge=1)] | None = None
    guidance_scale: _Number | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """As that of `videorl sample`; left out, the answer says which was drawn."""
    lora: str | AdapterName | None = None
    """Name of an adapter that was loaded at the start, or `base`."""
    extra_params: ExtraParams | None = None
    user: str | None = None
    """Taken, since clients send it; nothing is done with it."""


@dataclass(frozen=True)
class VideoTask:
    """A request that is complete: nothing about its video is left open."""

    prompt: str
    sampling: SamplingConfig
    """With the size, length, steps, guidance and negative prompt of this video."""
    seed: int
    adapter: str
    guide: Mapping[str, float] = field(default_factory=dict[str, float])
    max_factor: float | None = None

    @property
    def group(self) -> Any:
        """Tasks of equal groups may be sampled in one batch; guided ones never are."""
        alike = (self.adapter, repr(self.sampling))
        return (*alike, object()) if self.guide else alike

    @property
    def seconds(self) -> float:
        """Length of the video."""
        return self.sampling.num_frames / self.sampling.fps


@dataclass(frozen=True)
class Offer:
    """What is served."""

    model: str
    sampling: SamplingConfig
    """Of the recipe."""
    adapters: tuple[str, ...] = (BASE,)
    """Names that requests may choose by `lora` or `model`; the first is used otherwise."""
    dimensions: tuple[str, ...] = ()
    """Of the latent reward; empty = there is none."""
    rewards: tuple[str, ...] = ()
    """Names of the loaded reward models."""


FIELDS: TypeAdapter[VideoFields] = TypeAdapter(VideoFields)


def read_fields(given: Mapping[str, Any]) -> VideoFields:
    """Check the fields of a request, as they come in JSON or as the texts of a form.

    Raises:
        RequestError: Names the first field at fault, what it must be, and what it was.
    """
    found = dict(given)
    for name in _JSON_FIELDS:
        if isinstance(text := found.get(name), str) and text.lstrip().startswith("{"):
            try:
                found[name] = parse_json(text, name)
            except ValueError as error:
                raise RequestError(str(error), param=name) from error
    try:
        return FIELDS.validate_python(found)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False)) from error


def invalid(problems: list[Any]) -> RequestError:
    """Return the refusal for what pydantic found; of a long value only the start is shown."""
    first = problems[0]
    place = [str(part) for part in first["loc"]]
    param = place[0] if place else None
    if param == "lora":
        message = (
            f"lora must be a name, or an object with `name` alone, got {str(first['input'])[:80]}: "
            "adapters are loaded when the server starts (--adapter NAME=RUN), never from a path in "
            "a request"
        )
    elif first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        message = f"there is no field {place[-1][:80]}, see /openapi.json for those that there are"
    else:
        what = f", got {str(first['input'])[:80]!r}" if first["type"] != "missing" else ""
        message = f"{'.'.join(place)[:120]}: {first['msg']}{what}"
    return RequestError(message, param=param, code=first["type"])


def complete(fields: VideoFields, offer: Offer, limits: ServingLimits) -> VideoTask:
    """Fill in what a request leaves out.

    Raises:
        RequestError: Fields contradict each other, or ask for what is not served or too much.
    """
    usual = offer.sampling
    width, height = _size(fields)
    sampling = replace(
        usual,
        width=width or usual.width,
        height=height or usual.height,
        fps=_or(fields.fps, usual.fps),
        num_inference_steps=_or(fields.num_inference_steps, usual.num_inference_steps),
        guidance_scale=_or(fields.guidance_scale, usual.guidance_scale),
        negative_prompt=_or(fields.negative_prompt, usual.negative_prompt),
    )
    sampling.num_frames = _frames(fields, sampling)
    _check_work(sampling, limits)
    extra = fields.extra_params or ExtraParams()
    _check_guide(extra, offer)
    seed = secrets.randbelow(2**31) if fields.seed is None else fields.seed
    if not fields.prompt.strip():
        raise RequestError("prompt is blank: say what the video shows", param="prompt")
    adapter = _adapter(fields, offer)
    return VideoTask(fields.prompt, sampling, seed, adapter, extra.guide, extra.max_factor)


def _or(given: Any, usual: Any) -> Any:
    return usual if given is None else given


def _size(fields: VideoFields) -> tuple[int | None, int | None]:
    if fields.size is None:
        return fields.width, fields.height
    width, height = map(int, fields.size.split("x"))
    if (fields.width or width, fields.height or height) != (width, height):
        raise RequestError(
            f"size={fields.size} and width={fields.width}, height={fields.height} contradict each "
            "other: give size alone, or width and height",
            param="size",
        )
    return width, height


def _frames(fields: VideoFields, sampling: SamplingConfig) -> int:
    if fields.seconds is None:
        return _or(fields.num_frames, sampling.num_frames)
    if fields.num_frames is not None:
        raise RequestError(
            "seconds and num_frames both say how long the video is: give only one of them",
            param="seconds",
        )
    return max(1, round(fields.seconds * sampling.fps))


def _check_work(sampling: SamplingConfig, limits: ServingLimits) -> None:
    pixels = sampling.num_frames * sampling.height * sampling.width
    if pixels > limits.max_pixels:
        raise RequestError(
            f"{sampling.num_frames} frames of {sampling.width}x{sampling.height} are {pixels} "
            f"pixels, this server samples at most {limits.max_pixels}: ask for a smaller or "
            "shorter video",
            param="size",
            code="video_too_large",
        )
    if sampling.num_inference_steps > limits.max_steps:
        raise RequestError(
            f"num_inference_steps must be at most {limits.max_steps} here, got "
            f"{sampling.num_inference_steps}",
            param="num_inference_steps",
        )


def _check_guide(extra: ExtraParams, offer: Offer) -> None:
    if extra.guide and not offer.dimensions:
        raise RequestError(
            "extra_params.guide needs a latent reward, and this server has none: it is loaded "
            "when the server starts (--latent-reward FOLDER)",
            param="extra_params",
        )
    if unknown := sorted(set(extra.guide) - set(offer.dimensions)):
        raise RequestError(
            f"extra_params.guide: unknown dimension {unknown[0][:80]!r}; the latent reward scores "
            f"{', '.join(offer.dimensions)}",
            param="extra_params",
        )
    if extra.max_factor is not None and not extra.guide:
        raise RequestError(
            "extra_params.max_factor is for guidance, but there is no extra_params.guide",
            param="extra_params",
        )


def _adapter(fields: VideoFields, offer: Offer) -> str:
    lora = fields.lora.name if isinstance(fields.lora, AdapterName) else fields.lora
    model = None if fields.model in (None, "", offer.model) else fields.model
    for param, name in (("lora", lora), ("model", model)):
        if name and name not in offer.adapters:
            known = ", ".join([*([offer.model] if param == "model" else []), *offer.adapters])
            shown = re.sub(r"[^\x20-\x7e]", "?", name[:80])
            raise RequestError(
                f"there is no {param} {shown!r} here; there are {known}. Adapters get their names "
                "when the server starts (--adapter NAME=RUN)",
                status=404,
                param=param,
                code="adapter_not_found" if param == "lora" else "model_not_found",
            )
    if lora and model and lora != model:
        raise RequestError(f"lora={lora} and model={model} name two adapters", param="lora")
    return lora or model or offer.adapters[0]

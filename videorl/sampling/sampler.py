"""Sampling the candidates of a prompt from verified weights."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor

from videorl.embedding import Embedding
from videorl.errors import VideoError, WeightMismatchError
from videorl.protocols import DifferentiablePolicy, Policy
from videorl.types import Candidate, CandidateGroup, Media, SampleRequest, Video, WeightVersion
from videorl.weights import verify

logger = logging.getLogger(__name__)

LATENTS = "latents_not_finite"
UNDECODABLE = "video_undecodable"
"""Reasons why a candidate was sampled in vain."""


class CandidateSampler:
    """A policy that knows which published weights it holds, and samples from no others.

    Args:
        policy: The model that samples.
        verify_every_request: Recompute the digest before every request instead of once per load.
            Costs one pass over the trained tensors (0.3 s per GB): cheap for adapters.
    """

    def __init__(self, policy: Policy, *, verify_every_request: bool = False) -> None:
        self._policy = policy
        self._verify_every_request = verify_every_request
        self._version: WeightVersion | None = None

    @property
    def version(self) -> WeightVersion | None:
        """The version whose digest the live parameters have; None before the first load."""
        return self._version

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the trained tensors that it holds, as they are published."""
        return self._policy.weights()

    def load(self, version: WeightVersion, weights: Mapping[str, Tensor]) -> None:
        """Load published weights, and verify the digest of the live parameters.

        Raises:
            WeightMismatchError: The live parameters are not those of `version`; this sampler then
                holds no version and refuses to sample.
        """
        self._version = None
        self._policy.load_weights(weights)
        verify(self._policy.weights(), version)
        self._version = version

    def sample(
        self,
        request: SampleRequest,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding,
        together: AbstractContextManager[Any] | None = None,
    ) -> tuple[list[Tensor], list[Video | str], dict[str, float]]:
        """Return latents [C, T, H, W] and the video of each seed, and seconds per stage.

        In the place of a video that cannot be used is the reason: `latents_not_finite` or
        `video_undecodable`.

        Args:
            request: What to sample.
            prompt_embeds: Of the prompt.
            negative_prompt_embeds: Of what guidance steers away from.
            together: Is entered while the latents are sampled, not while they are decoded.

        Raises:
            WeightMismatchError: The request wants another version than the live one.
        """
        started = time.perf_counter()
        with together or nullcontext():
            latents_BCTHW = self.latents(request, prompt_embeds, negative_prompt_embeds)
        sampled = time.perf_counter()
        videos = self._decoded(latents_BCTHW)
        timings = {"sample_s": sampled - started, "decode_s": time.perf_counter() - sampled}
        # Clones, as a view would be sent with the memory of the whole batch.
        return [latents.detach().cpu().clone() for latents in latents_BCTHW], videos, timings

    def _decoded(self, latents_BCTHW: Tensor) -> list[Video | str]:
        is_finite_B = latents_BCTHW.flatten(1).isfinite().all(1).tolist()
        try:
            if all(is_finite_B):
                return [*self._policy.decode(latents_BCTHW)]
        except VideoError:  # of which video, each alone will tell
            pass
        return [
            self._decoded_alone(latents_BCTHW[index : index + 1]) if is_finite else LATENTS
            for index, is_finite in enumerate(is_finite_B)
        ]

    def _decoded_alone(self, latents_1CTHW: Tensor) -> Video | str:
        try:
            (video,) = self._policy.decode(latents_1CTHW)
        except VideoError as error:
            logger.warning("a candidate is dropped: %s", error)
            return UNDECODABLE
        return video

    def latents(
        self, request: SampleRequest, prompt_embeds: Embedding, negative_prompt_embeds: Embedding
    ) -> Tensor:
        """Return only the latents [B, C, T, H, W], on the policy's device.

        Raises:
            WeightMismatchError: As in `sample`.
        """
        if self._version is None or request.version != self._version:
            raise WeightMismatchError(
                f"request for step {request.version.step} ({request.version.digest[:12]}), but "
                f"{_name(self._version)} is loaded: call load() first"
            )
        if self._verify_every_request:
            verify(self._policy.weights(), self._version)
        if request.num_steps:
            return self._few_steps(request, prompt_embeds, negative_prompt_embeds)
        return self._policy.sample(prompt_embeds, negative_prompt_embeds, request.seeds)

    @torch.no_grad()
    def _few_steps(self, request: SampleRequest, embeds: Embedding, negative: Embedding) -> Tensor:
        policy = cast(DifferentiablePolicy, self._policy)  # as `load_policy` returns it
        num, steps = len(request.seeds), request.num_steps
        embeds_of_each = [embeds] * num, [negative] * num
        return policy.sample_partly(*embeds_of_each, request.seeds, [steps] * num, steps)[0]


def _name(version: WeightVersion | None) -> str:
    return "no version" if version is None else f"step {version.step} ({version.digest[:12]})"


def candidate_group(
    request: SampleRequest,
    version: WeightVersion,
    prompt_embeds: Media,
    latents: Sequence[Media],
    videos: Sequence[Media],
    unusable: Mapping[int, str] | None = None,
) -> CandidateGroup:
    """Name the media of one request as candidates; media may be handles.

    Args:
        request: The request that was sampled.
        version: The version that was verified to be live.
        prompt_embeds: Of the prompt.
        latents: [C, T, H, W] for each seed of the request.
        videos: A `Video` for each seed.
        unusable: Place of a candidate that is left out and counted -> the reason.
    """
    media, lost = zip(request.seeds, latents, videos, strict=True), unusable or {}
    number, prompt, first = request.round, request.prompt, request.first
    return CandidateGroup(
        request.prompt,
        prompt_embeds,
        tuple(
            Candidate(number, prompt, first + place, seed, version, latent, video)
            for place, (seed, latent, video) in enumerate(media)
            if place not in lost
        ),
        dict(Counter(lost.values())),
        request.is_behind,
    )


def unusable(videos: Sequence[Video | str]) -> dict[int, str]:
    """Return place -> reason of what `CandidateSampler.sample` could not make a video of."""
    return {index: video for index, video in enumerate(videos) if isinstance(video, str)}

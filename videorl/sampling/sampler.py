"""Sampling the candidates of a prompt from verified weights."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from torch import Tensor

from videorl.errors import WeightMismatchError
from videorl.protocols import Policy
from videorl.types import Candidate, CandidateGroup, Media, SampleRequest, Video, WeightVersion
from videorl.weights import verify


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
        self, request: SampleRequest, prompt_embeds_LD: Tensor, negative_prompt_embeds_LD: Tensor
    ) -> tuple[list[Tensor], list[Video], dict[str, float]]:
        """Return latents [C, T, H, W] and the video of each seed, and seconds per stage.

        Raises:
            WeightMismatchError: The request wants another version than the live one.
        """
        started = time.perf_counter()
        latents_BCTHW = self.latents(request, prompt_embeds_LD, negative_prompt_embeds_LD)
        sampled = time.perf_counter()
        videos = self._policy.decode(latents_BCTHW)
        timings = {"sample_s": sampled - started, "decode_s": time.perf_counter() - sampled}
        # Clones, as a view would be sent with the memory of the whole batch.
        return [latents.detach().cpu().clone() for latents in latents_BCTHW], videos, timings

    def latents(
        self, request: SampleRequest, prompt_embeds_LD: Tensor, negative_prompt_embeds_LD: Tensor
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
        return self._policy.sample(prompt_embeds_LD, negative_prompt_embeds_LD, request.seeds)


def _name(version: WeightVersion | None) -> str:
    return "no version" if version is None else f"step {version.step} ({version.digest[:12]})"


def candidate_group(
    request: SampleRequest,
    version: WeightVersion,
    prompt_embeds: Media,
    latents: Sequence[Media],
    videos: Sequence[Media],
) -> CandidateGroup:
    """Name the media of one request as candidates; media may be handles.

    Args:
        request: The request that was sampled.
        version: The version that was verified to be live.
        prompt_embeds: Embedding [L, D] of the prompt.
        latents: [C, T, H, W] for each seed of the request.
        videos: A `Video` for each seed.
    """
    media = zip(request.seeds, latents, videos, strict=True)
    return CandidateGroup(
        request.prompt,
        prompt_embeds,
        tuple(
            Candidate(request.round, request.prompt, index, seed, version, latent, video)
            for index, (seed, latent, video) in enumerate(media)
        ),
    )

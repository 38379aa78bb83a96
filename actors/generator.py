"""Generators: workers that sample candidates from published weights, and the driver's pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayActorError

from actors.encoder import RayEncoder
from actors.naming import named, shown_by_name
from actors.placement import start_actor
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits, Reply
from actors.processes.followers import Followers, Sharing
from actors.processes.worker_process import own_node, prepare_process
from actors.seats.seats import Seats
from actors.store.media import Packed, pack, unpack
from actors.store.weights import publish, pull
from videorl.errors import MediaLostError
from videorl.futures import gathered, mapped, recovered, then
from videorl.policies.compiling import num_failures
from videorl.sampling.canary import compare
from videorl.sampling.sampler import CandidateSampler, candidate_group, unusable
from videorl.types import CandidateGroup, Condition, SampleRequest, WeightVersion
from videorl.weights import digest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videorl.embedding import Embedding
    from videorl.protocols import Policy

_MAX_ENCODED = 3
"""Times that a request's prompts are encoded again because their embeddings were lost."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """A generator's small answer to one request; the media are separate objects."""

    version: WeightVersion
    """What sampled: its digest was recomputed from the live parameters."""
    timings: dict[str, float]
    """Seconds per stage: `sample_s`, `decode_s`, and `load_s` where new weights were loaded."""
    unusable: dict[int, str]
    """Place of a candidate that was sampled in vain -> the reason."""
    is_uncompiled: bool = False
    """In one of the worker's processes the blocks did not compile: it runs as without
    `policy.compile`."""


@dataclass(frozen=True, slots=True)
class StageTime:
    """Time spent in one stage of generation so far, over all workers."""

    count: int
    """Requests that went through it."""
    seconds: float


@shown_by_name
class GeneratorWorker:
    """Holds one policy, and samples with the weights that a request asks for.

    Args:
        load: Builds the policy on a device, with transformer and VAE.
        weight_store: The `WeightStore` that weights are pulled from.
        num_cpus: Threads that torch may use; rounded down, at least 1.
        sharing: The processes that share every video; `num_cpus` is of all of them.
    """

    def __init__(
        self,
        load: Callable[[torch.device], Policy],
        weight_store: ActorHandle,
        num_cpus: float,
        sharing: Sharing,
    ) -> None:
        self._load = load
        self._weight_store = weight_store
        self._num_cpus = num_cpus / sharing.num_processes
        self._sharing = sharing
        self._followers: Followers | None = None
        self._sampler: CandidateSampler | None = None

    def ready(self) -> str:
        """Load the model if it is not loaded; return the id of this node."""
        if self._sampler is None:
            device = prepare_process(self._num_cpus)
            if self._sharing.num_processes > 1:
                self._followers = Followers(self._sharing, device, max(1, int(self._num_cpus)))
            self._sampler = CandidateSampler(self._load(device))
            if self._followers:
                self._followers.wait_until_ready()
        return own_node()

    def publish_base(self) -> WeightVersion:
        """Publish the weights that training starts from as those of step 0.

        The learner, which gets the same from model and seed, may not have started yet.
        """
        assert self._sampler is not None, "the pool waits for ready()"
        weights = self._sampler.weights()
        version = WeightVersion(0, digest(weights))
        publish(self._weight_store, version, weights)
        return version

    def generate(
        self, request: SampleRequest, prompt_embeds: Packed, negative_prompt_embeds: Packed
    ) -> tuple[Any, ...]:
        """Return `Sampled`, then the packed latents of every seed, then the videos of every seed.

        Raises:
            WeightMismatchError: The live parameters are not the published ones after loading.
        """
        sampler, loading = self._loaded(request.version)
        embeds = unpack(prompt_embeds), unpack(negative_prompt_embeds)
        together = self._all_processes(request, *embeds)
        latents, videos, timings = sampler.sample(request, *embeds, together)
        assert sampler.version is not None
        followers = self._followers
        is_uncompiled = num_failures() > 0 or (followers is not None and followers.is_uncompiled)
        answer = Sampled(sampler.version, loading | timings, unusable(videos), is_uncompiled)
        return answer, *map(pack, latents), *videos

    def canary(
        self,
        request: SampleRequest,
        prompt_embeds: Packed,
        negative_prompt_embeds: Packed,
        wanted_BCTHW: Tensor,
        tolerance: float,
    ) -> float:
        """Return how far the sampled latents are from the learner's, see `videorl.sampling.canary`.

        Raises:
            WeightMismatchError: They are further than `tolerance`, or the live parameters are not
                the published ones after loading.
        """
        sampler, _ = self._loaded(request.version)
        embeds = unpack(prompt_embeds), unpack(negative_prompt_embeds)
        with self._all_processes(request, *embeds):
            found_BCTHW = sampler.latents(request, *embeds).cpu()
        return compare(found_BCTHW, wanted_BCTHW, request.version, tolerance)

    def _loaded(self, version: WeightVersion) -> tuple[CandidateSampler, dict[str, float]]:
        """Return the sampler with these weights in it, and the seconds that loading took."""
        sampler = self._sampler
        assert sampler is not None, "the pool waits for ready()"
        if version == sampler.version:
            return sampler, {}
        started = time.perf_counter()
        weights = self._pull(version)
        sampler.load(version, weights)
        if self._followers:
            self._followers.load(version, weights)
        return sampler, {"load_s": time.perf_counter() - started}

    def _all_processes(
        self, request: SampleRequest, *embeds: Embedding
    ) -> AbstractContextManager[None]:
        followers = self._followers
        return followers.sampling(request, *embeds) if followers else nullcontext()

    def _pull(self, version: WeightVersion) -> dict[str, Tensor]:
        try:
            return pull(self._weight_store, version)
        except (ObjectLostError, RayActorError) as error:
            # Not an input of the request: a repeat may succeed, so it must not count as lost.
            raise RuntimeError(f"weights of step {version.step} are out of reach") from error


def generator_creator(
    load: Callable[[torch.device], Policy],
    weight_store: ActorHandle,
    options: dict[str, Any],
    sharing: Sharing | None = None,
    run: str = "",
    seats: Seats | None = None,
) -> Callable[[int], ActorHandle]:
    """Return what an `ElasticPool` calls to start a generator.

    Args:
        load: Builds a generator's policy on a device, with transformer and VAE.
        weight_store: The `WeightStore` that weights are pulled from.
        options: Ray options of each worker (`num_cpus`, `num_gpus`).
        sharing: The processes of a worker that share every video; None = it is one process.
        run: Name of the run, for `actors.naming.named`.
        seats: Where they go, as the pool is told; None = where Ray puts them.
    """
    arguments = (load, weight_store, options["num_cpus"], sharing or Sharing())
    where = seats or Seats()

    def create(number: int) -> ActorHandle:
        names = named(options | where.options(number), run, f"generator-{number}")
        return start_actor(GeneratorWorker, names, *arguments)

    return create


class RayGenerator:
    """Implements `videorl.protocols.Generator` on an elastic pool.

    Args:
        create_worker: Starts a `GeneratorWorker`, or an actor with the same methods.
        encoder: Encodes each prompt once, for all generators.
        negative_prompt: Text that guidance steers away from.
        limits: Sizes and timeouts of the pool.
        seats: Where its workers go; None = where Ray puts them.
    """

    def __init__(
        self,
        create_worker: Callable[[int], ActorHandle],
        encoder: RayEncoder,
        negative_prompt: str,
        limits: Limits,
        seats: Seats | None = None,
    ) -> None:
        self.pool = ElasticPool("generator", create_worker, limits, seats)
        self.encoder = encoder
        self._negative_prompt = negative_prompt
        self._stages: dict[str, StageTime] = {}
        self._num_uncompiled = 0

    def publish_base(self) -> WeightVersion:
        """Have a worker publish the weights it was loaded with; nothing was published before."""
        version: WeightVersion = (
            self.pool.submit(lambda worker: [worker.publish_base.remote()]).result().value
        )
        return version

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        """Encode the prompt if it is new, then queue the request.

        Embeddings that were lost with their node are made anew, a few times.
        """
        return self._submit(request, _MAX_ENCODED)

    def _submit(self, request: SampleRequest, num_left: int) -> Future[CandidateGroup]:
        prompt, negative = request.prompt.condition, self._negative_prompt

        def generated(refs: list[ObjectRef]) -> Future[CandidateGroup]:
            def anew(error: Exception) -> Future[CandidateGroup]:
                if not num_left or not isinstance(error, MediaLostError):
                    raise error
                for each, ref in zip((prompt, negative), refs, strict=True):
                    self.encoder.forget(each, ref)
                return self._submit(request, num_left - 1)

            return recovered(self._generate(request, refs), anew)

        return then(self.embeds(prompt), generated)

    def embeds(self, prompt: Condition) -> Future[list[ObjectRef]]:
        """Encode a prompt if it is new; return its embedding and the negative prompt's."""
        return gathered([self.encoder.submit(each) for each in (prompt, self._negative_prompt)])

    def canary(
        self,
        request: SampleRequest,
        embeds: Sequence[ObjectRef],
        wanted: ObjectRef,
        tolerance: float,
    ) -> list[Future[float]]:
        """Sample as many canaries as there are workers: idle workers get one each.

        A worker that disagrees is replaced, and another samples its canary. Each future gives the
        difference, or fails with `WorkLostError` if every worker that tried disagreed.

        Args:
            request: What to sample.
            embeds: Embeddings of the prompt and of the negative prompt.
            wanted: The learner's latents [B, C, T, H, W].
            tolerance: Largest difference that counts as agreement.
        """

        def call(worker: ActorHandle) -> list[ObjectRef]:
            return [worker.canary.remote(request, *embeds, wanted, tolerance)]

        return [
            mapped(self.pool.submit(call), lambda reply: float(reply.value))
            for _ in range(max(1, self.pool.stats().workers))
        ]

    def stages(self) -> dict[str, StageTime]:
        """Return the time spent so far in each stage (`load_s`, `sample_s`, `decode_s`)."""
        return dict(self._stages)

    def num_uncompiled(self) -> int:
        """Return how many requests so far were sampled by workers whose blocks do not compile."""
        return self._num_uncompiled

    def close(self) -> None:
        """Stop every worker."""
        self.pool.close()

    def _generate(self, request: SampleRequest, embeds: list[ObjectRef]) -> Future[CandidateGroup]:
        num_media = len(request.seeds)

        def call(worker: ActorHandle) -> list[ObjectRef]:
            # One result per medium: each is an object of its own, and the driver owns it.
            return worker.generate.options(num_returns=1 + 2 * num_media).remote(request, *embeds)

        def as_group(reply: Reply) -> CandidateGroup:
            for stage, seconds in reply.value.timings.items():
                before = self._stages.get(stage, StageTime(0, 0.0))
                self._stages[stage] = StageTime(before.count + 1, before.seconds + seconds)
            latents, videos = reply.media[:num_media], reply.media[num_media:]
            sampled: Sampled = reply.value
            self._num_uncompiled += sampled.is_uncompiled
            return candidate_group(
                request, sampled.version, embeds[0], latents, videos, sampled.unusable
            )

        kind = f"{len(request.seeds)} candidates, {request.num_steps} steps"
        answer = self.pool.submit(call, kind, is_behind=request.is_behind)
        return mapped(answer, as_group)

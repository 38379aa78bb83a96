"""The text encoders: each prompt is encoded once, so that no generator holds the model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import ObjectLostError, RayTaskError

from actors.naming import named, shown_by_name
from actors.placement import beside_driver, start_actor
from actors.pool.limits import encoder_limits
from actors.pool.outcomes import as_own_error, cause_of
from actors.pool.pool import ElasticPool
from actors.pool.state import Limits, Reply
from actors.processes.worker_process import own_node, prepare_process
from actors.seats.seats import Seats
from actors.store.media import Packed, pack
from videorl.errors import MediaLostError
from videorl.futures import mapped
from videorl.sampling.embeddings import EmbeddingCache
from videorl.settings.workers import EncoderConfig

if TYPE_CHECKING:
    import torch

    from videorl.protocols import Policy
    from videorl.types import Condition


Load: TypeAlias = "Callable[[torch.device], Policy]"

_TRIES = 4
"""Times that a prompt is encoded whose embedding is lost with its node at once."""


@shown_by_name
class Encoder:
    """Encodes prompts with a policy of which only the text encoder is loaded.

    Args:
        load: Builds the policy on a device, with its text encoder.
        num_cpus: Threads that torch may use; rounded down, at least 1.
    """

    def __init__(self, load: Load, num_cpus: float) -> None:
        self._load = load
        self._num_cpus = num_cpus
        self._policy: Policy | None = None

    def ready(self) -> str:
        """Load the model if it is not loaded; return the id of this node."""
        if self._policy is None:
            self._policy = self._load(prepare_process(self._num_cpus))
        return own_node()

    def encode(self, prompt: Condition) -> tuple[int, Packed]:
        """Return the number of tokens L, and the packed embedding.

        Args:
            prompt: A text, perhaps with a picture.

        Raises:
            PromptError: The prompt is longer than the text encoder takes.
        """
        assert self._policy is not None, "the pool waits for ready()"
        (embedding,) = self._policy.encode([prompt])
        return embedding.num_tokens, pack(embedding)


class RayEncoder:
    """The driver's side: holds references to embeddings, never embeddings.

    Args:
        load: Builds the policy on a device, with its text encoder.
        options: Ray options of each worker (`num_cpus`, `num_gpus`).
        limits: Sizes and timeouts of the pool; None = those of the default settings.
        run: Name of the run, for `actors.naming.named`.
        seats: Where they go; None = where Ray puts them.
    """

    def __init__(
        self,
        load: Load,
        options: dict[str, Any],
        limits: Limits | None = None,
        run: str = "",
        seats: Seats | None = None,
    ) -> None:
        seats = seats or Seats()

        def create(number: int) -> ActorHandle:
            names = named(options | seats.options(number), run, f"encoder-{number}")
            return start_actor(Encoder, names, load, options["num_cpus"])

        limits = limits or encoder_limits(EncoderConfig())
        self.pool = ElasticPool("encoder", create, limits, seats)
        self._embeddings: EmbeddingCache[Future[ObjectRef]] = EmbeddingCache(self._send)
        # The driver's own thread asks for prompts, those of pools for what was lost.
        self._lock = threading.RLock()
        self._copy: Any = ray.remote(_copy)

    def submit(self, prompt: Condition) -> Future[ObjectRef]:
        """Return a future of the reference to the prompt's embedding.

        It fails with the encoder's own `VideorlError` (e.g. `PromptError`), otherwise as those of
        `ElasticPool`; the prompt is then encoded anew when it is asked for again.
        """
        with self._lock:
            embedding = self._embeddings[prompt]
            if embedding.done() and embedding.exception() is not None:
                self._embeddings.discard(prompt)
                embedding = self._embeddings[prompt]
        return mapped(embedding, lambda ref: ref)

    def forget(self, prompt: Condition, embedding: ObjectRef) -> None:
        """Encode a prompt anew when it is asked for again: its embedding went with its node.

        Several may find that at once; what has been encoded anew already stays.
        """
        with self._lock:
            kept = self._embeddings[prompt]
            if kept.done() and kept.exception() is None and kept.result() == embedding:
                self._embeddings.discard(prompt)

    def encode_here(self, prompt: Condition) -> ObjectRef:
        """Wait for an embedding that no other node can take with it: it lies on the driver's.

        Raises:
            MediaLostError: It was lost, time after time, before it was copied here.
        """
        for _ in range(_TRIES):
            embedding = self.submit(prompt).result()
            if len(ray.nodes()) == 1:
                return embedding
            made, copied = self._copy.options(**beside_driver(), num_returns=2).remote(embedding)
            try:
                ray.get(made)
            except (ObjectLostError, RayTaskError) as error:
                if not isinstance(cause_of(error), ObjectLostError):
                    raise as_own_error(error) from error
                self.forget(prompt, embedding)
            else:
                return copied
        raise MediaLostError(f"the embedding of {str(prompt)[:80]!r} was lost {_TRIES} times")

    def close(self) -> None:
        """Stop every worker."""
        self.pool.close()

    def _send(self, prompt: Condition) -> Future[ObjectRef]:
        def call(worker: ActorHandle) -> list[ObjectRef]:
            return worker.encode.options(num_returns=2).remote(prompt)

        def embedding(reply: Reply) -> ObjectRef:
            return reply.media[0]

        return mapped(self.pool.submit(call), embedding)


def _copy(embedding: Packed) -> tuple[bool, Packed]:
    return True, embedding

"""The text encoder: one actor encodes each prompt once, so that no generator holds the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeAlias

import ray
from ray import ObjectRef

from actors.naming import named, shown_by_name
from actors.placement import start_actor
from actors.pool.outcomes import as_own_error, cause_of, first_line
from actors.processes.worker_process import prepare_process
from videorl.errors import VideorlError, WorkLostError
from videorl.futures import mapped, recovered
from videorl.sampling.embeddings import EmbeddingCache

if TYPE_CHECKING:
    import torch

    from videorl.embedding import Embedding
    from videorl.protocols import Policy
    from videorl.types import Condition


Load: TypeAlias = "Callable[[torch.device], Policy]"


@shown_by_name
class Encoder:
    """Encodes prompts with a policy of which only the text encoder is loaded.

    Args:
        num_cpus: Threads that torch may use; rounded down, at least 1.
    """

    def __init__(self, num_cpus: float) -> None:
        self._num_cpus = num_cpus
        self._policy: Policy | None = None

    def prepare(self, load: Load) -> None:
        """Load the model if it is not loaded."""
        if self._policy is None:
            self._policy = load(prepare_process(self._num_cpus))

    def encode(self, prompt: Condition, load: Load) -> tuple[int, Embedding]:
        """Return the number of tokens L, and the embedding.

        Args:
            prompt: A text, perhaps with a picture.
            load: Builds the policy on a device, with its text encoder, where it is not loaded.

        Raises:
            PromptError: The prompt is longer than the text encoder takes.
        """
        self.prepare(load)
        assert self._policy is not None
        (embedding,) = self._policy.encode([prompt])
        return embedding.num_tokens, embedding


class RayEncoder:
    """The driver's side: holds references to embeddings, never embeddings.

    Ray restarts the actor elsewhere if its node is lost, and repeats its calls; it can also
    rebuild an embedding that was lost.

    Args:
        load: Builds the policy on a device, with its text encoder.
        options: Ray options of the actor (`num_cpus`, `num_gpus`).
        run: Name of the run, for `actors.naming.named`.
    """

    def __init__(self, load: Load, options: dict[str, Any], run: str = "") -> None:
        restarting = named(options, run, "encoder") | {"max_restarts": -1, "max_task_retries": -1}
        self._actor = start_actor(Encoder, restarting, options["num_cpus"])
        # Every call has it. As an argument of the actor it could be gone when that starts again:
        # the store keeps a large one only for the first start (ray-project/ray#53727).
        self._load = ray.put(load)
        # While the other workers load theirs. Its error, if any, comes again with the first prompt.
        self._prepared = self._actor.prepare.remote(self._load)
        self._embeddings: EmbeddingCache[tuple[Future[int], ObjectRef]] = EmbeddingCache(self._send)

    def submit(self, prompt: Condition) -> Future[ObjectRef]:
        """Return a future of the reference to the prompt's embedding.

        It fails with the encoder's own `VideorlError` (e.g. `PromptError`), otherwise with
        `WorkLostError`.
        """
        length, embeds = self._embeddings[prompt]
        if length.done() and length.exception() is not None:
            self._embeddings.discard(prompt)
            length, embeds = self._embeddings[prompt]
        return mapped(recovered(length, _failed), lambda _: embeds)

    def close(self) -> None:
        """Stop the actor."""
        ray.kill(self._actor, no_restart=True)

    def _send(self, prompt: Condition) -> tuple[Future[int], ObjectRef]:
        refs: list[ObjectRef] = self._actor.encode.options(num_returns=2).remote(prompt, self._load)
        return refs[0].future(), refs[1]


def _failed(error: Exception) -> Future[int]:
    if isinstance(cause_of(error), VideorlError):
        raise as_own_error(error)
    raise WorkLostError(f"text encoder: {first_line(error)}")

"""The text encoder: one actor encodes each prompt once, so that no generator holds the model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray
from ray import ObjectRef

from actors.placement import start_actor
from actors.pool.outcomes import as_own_error, cause_of, first_line
from actors.worker_process import prepare_process
from videorl.errors import VideorlError, WorkLostError
from videorl.futures import mapped, recovered
from videorl.sampling.embeddings import EmbeddingCache

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videorl.protocols import Policy


class Encoder:
    """Encodes prompts with a policy of which only the text encoder is loaded.

    Args:
        load: Builds the policy on a device, with its text encoder.
        num_cpus: Threads that torch may use; rounded down, at least 1.
    """

    def __init__(self, load: Callable[[torch.device], Policy], num_cpus: float) -> None:
        self._load = load
        self._num_cpus = num_cpus
        self._policy: Policy | None = None

    def encode(self, text: str) -> tuple[int, Tensor]:
        """Return the number of tokens L, and the unpadded embedding [L, D].

        Raises:
            PromptError: The prompt is longer than the text encoder takes.
        """
        if self._policy is None:
            self._policy = self._load(prepare_process(self._num_cpus))
        (embeds_LD,) = self._policy.encode([text])
        return len(embeds_LD), embeds_LD.cpu()


class RayEncoder:
    """The driver's side: holds references to embeddings, never embeddings.

    Ray restarts the actor elsewhere if its node is lost, and repeats its calls; it can also
    rebuild an embedding that was lost.

    Args:
        load: Builds the policy on a device, with its text encoder.
        options: Ray options of the actor (`num_cpus`, `num_gpus`).
    """

    def __init__(self, load: Callable[[torch.device], Policy], options: dict[str, Any]) -> None:
        restarting = {**options, "max_restarts": -1, "max_task_retries": -1}
        self._actor = start_actor(Encoder, restarting, load, options["num_cpus"])
        self._embeddings: EmbeddingCache[tuple[Future[int], ObjectRef]] = EmbeddingCache(self._send)

    def submit(self, text: str) -> Future[ObjectRef]:
        """Return a future of the reference to `text`'s embedding.

        It fails with the encoder's own `VideorlError` (e.g. `PromptError`), otherwise with
        `WorkLostError`.
        """
        length, embeds = self._embeddings[text]
        if length.done() and length.exception() is not None:
            self._embeddings.discard(text)
            length, embeds = self._embeddings[text]
        return mapped(recovered(length, _failed), lambda _: embeds)

    def close(self) -> None:
        """Stop the actor."""
        ray.kill(self._actor, no_restart=True)

    def _send(self, text: str) -> tuple[Future[int], ObjectRef]:
        refs: list[ObjectRef] = self._actor.encode.options(num_returns=2).remote(text)
        return refs[0].future(), refs[1]


def _failed(error: Exception) -> Future[int]:
    if isinstance(cause_of(error), VideorlError):
        raise as_own_error(error)
    raise WorkLostError(f"text encoder: {first_line(error)}")

"""How far the policy's predictions are from those of the model before any training.

The reference moves with the policy, so what compares with it says nothing of the whole way. Here
the same few noisy latents are predicted again and again, by the policy and by the base.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from videorl.embedding import Embedding
from videorl.errors import ConfigError
from videorl.learning.drift import adapter_norm
from videorl.protocols import Policy
from videorl.types import Media, PromptExample

logger = logging.getLogger(__name__)

FILE = "drift"
"""Name of the file of a checkpoint with what is predicted."""
NUM_VIDEOS = 2
TIMES = (0.25, 0.5, 0.75)
"""In [0, 1], 1 is pure noise: a mean over all times would rest on those where little is decided."""
DRIFT, NORM = "drift/predictions", "drift/adapter_norm"


class PredictionDrift:
    """Measures the drift of a policy on latents of the first examples that it is shown.

    Args:
        policy: Of the learner, on this rank; all ranks measure the same, each for itself.
        interval: Steps from one measurement to the next; 0 = none.
        fetch: Opens media handles.
    """

    def __init__(
        self, policy: Policy, interval: int, fetch: Callable[[list[Media]], list[Any]]
    ) -> None:
        self._policy = policy
        self._interval = interval
        self._fetch = fetch
        self._fixed: list[tuple[Tensor, Embedding]] = []

    def __call__(
        self, version: int, examples: Sequence[Any], weights: Mapping[str, Tensor]
    ) -> dict[str, float]:
        """Return the drift of the weights of a version, if it is due.

        Args:
            version: Steps that the policy has made.
            examples: Of the newest one; latents of the first ever are what is predicted from then
                on.
            weights: As published, for the norm of an adapter; empty on ranks other than 0.

        Returns:
            `drift/predictions`: the mean over fixed latents, times and numbers of the squared
            difference of both predictions, in the model's own target. `drift/adapter_norm`.
        """
        if not self._interval:
            return {}
        if not self._fixed and examples:
            self._fixed = self._opened(examples[:NUM_VIDEOS])
        if not self._fixed or version % self._interval:
            return {}
        try:
            found = {DRIFT: self._measured()}
        except ConfigError as error:  # all weights are trained, and no copy of the base is held
            logger.warning("the drift from the base is not measured: %s", error)
            self._interval = 0
            return {}
        norm = adapter_norm(weights)
        return found if norm is None else {**found, NORM: norm}

    def tensors(self) -> dict[str, Mapping[str, Tensor]]:
        """Return what a checkpoint must keep, by the name of its file; nothing if there is none."""
        if not self._fixed:
            return {}
        kept = {
            f"{number}.{name}": tensor.contiguous().cpu()
            for number, (latents, embeds) in enumerate(self._fixed)
            for name, tensor in {"latents": latents, **_of_text(embeds)}.items()
        }
        return {FILE: kept}

    def load(self, checkpoint: Path) -> None:
        """Go on with what a checkpoint keeps, if it does."""
        file = checkpoint / f"{FILE}.safetensors"
        if not self._interval or not file.exists():
            return
        rows: dict[int, dict[str, Tensor]] = {}
        for name, tensor in load_file(file).items():
            number, _, rest = name.partition(".")
            rows.setdefault(int(number), {})[rest] = tensor
        self._fixed = [
            (
                row.pop("latents"),
                Embedding({name.removeprefix("text."): each for name, each in row.items()}),
            )
            for _, row in sorted(rows.items())
        ]

    def _opened(self, examples: Sequence[Any]) -> list[tuple[Tensor, Embedding]]:
        found: list[tuple[Tensor, Embedding]] = []
        for number, example in enumerate(examples):
            if isinstance(example, PromptExample):
                handles = [example.prompt_embeds, example.negative_prompt_embeds]
                embeds, negative = self._fetch(handles)
                with torch.no_grad():
                    latents = self._policy.sample(embeds, negative, (number,))[0]
            else:
                handles = [example.candidates[0].candidate.latents, example.prompt_embeds]
                latents, embeds = self._fetch(handles)
            if embeds.is_finite and bool(latents.isfinite().all()):
                found.append((latents.detach().float().cpu(), embeds))
        return found

    @torch.no_grad()
    def _measured(self) -> float:
        differences = [
            self._difference(latents, embeds, t, number)
            for number, (latents, embeds) in enumerate(self._fixed)
            for t in TIMES
        ]
        return sum(differences) / len(differences)

    def _difference(self, latents_CTHW: Tensor, embeds: Embedding, t: float, seed: int) -> float:
        device = next(self._policy.trainable_module().parameters()).device
        draw = torch.Generator().manual_seed(seed)
        noise = torch.randn(latents_CTHW.shape, generator=draw).to(device)
        t_B = torch.tensor([t], device=device)
        x_t = self._policy.process.corrupt(latents_CTHW[None].to(device), noise[None], t_B)
        here = embeds.to(device)
        policy = self._policy.predict(x_t, t_B, [here], "policy")
        base = self._policy.predict(x_t, t_B, [here], "base")
        return float((policy.float() - base.float()).square().mean())


def _of_text(embeds: Embedding) -> dict[str, Tensor]:
    return {f"text.{name}": tensor for name, tensor in embeds.tensors.items()}

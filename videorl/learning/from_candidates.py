"""Learning from candidates that were sampled before: predictions, loss, gradient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from videorl.errors import ConfigError, VideoError
from videorl.learning.items import Batch, Example, Item, make_batch, make_items
from videorl.learning.passes import Measured, Pass, make_passes, num_passes
from videorl.learning.prefetching import Loader, load_when_needed
from videorl.learning.share import ALONE, Plan, Ranks, Update, open_share
from videorl.objectives.objective import LOSS, CandidateObjective, LossInputs
from videorl.protocols import Policy
from videorl.seeds import derive_seed
from videorl.types import Media, TrainingExample


class FromCandidates:
    """Implements `videorl.learning.method.Method` for pairs and single candidates.

    Args:
        policy: Of the learner.
        objective: The loss.
        seed: Of noise and times.
        video_pixels: Frames times height times width of a video.
        videos_per_forward: Fewer than an example has = its videos go through the model in turn.
        fetch: Opens media handles; the identity where media are passed by value.
        loader: Brings a micro-batch to the policy's device.
    """

    def __init__(
        self,
        policy: Policy,
        objective: CandidateObjective,
        seed: int,
        video_pixels: int = 0,
        videos_per_forward: int = 2**31,
        fetch: Callable[[list[Media]], list[Any]] = list,
        loader: Loader[Batch] = load_when_needed,
    ) -> None:
        self._policy = policy
        self._objective = objective
        self._seed = seed
        self._frozen_roles = sorted(objective.frozen_roles(video_pixels))
        self._videos_per_forward = videos_per_forward
        self._fetch = fetch
        self._loader = loader
        self.reference_is_policy = False

    def items(
        self,
        step: int,
        examples: Sequence[TrainingExample],
        ranks: Ranks = ALONE,
        num_updates: int = 1,
    ) -> tuple[list[Update[Item]], int]:
        """Open a rank's examples and spread them over times; return how many of all are left out.

        Left out are those whose latents or embeddings are not finite: they would void the step.

        Raises:
            VideoError: Two videos of one example differ in shape.
        """
        times = self._objective.timesteps_per_pair
        share = open_share(
            len(examples),
            Plan(times, ranks, num_updates),
            lambda positions: self._open(step, examples, positions),
            lambda example: example.is_finite,
        )
        if share is None:
            return [], len(examples)
        items = make_items(share.examples, times, self._policy.process, share.num_usable)
        return share.filled(items), len(examples) - share.num_usable

    def shortened(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items: each is one call of the model."""
        return items

    def passes(self, items: Sequence[Item]) -> list[Pass]:
        """Return the forward and backward passes of one micro-batch; it is loaded from now on."""
        device = next(self._policy.trainable_module().parameters()).device
        load = self._loader(partial(make_batch, items, self._policy.process), device)

        @cache
        def passes() -> list[Pass]:
            batch = load()
            return make_passes(
                self._policy,
                batch,
                self._frozen_roles,
                lambda inputs: self._loss(batch, inputs),
                self._videos_per_forward,
                reference_is_policy=self.reference_is_policy,
            )

        count = num_passes(sum(item.num_videos for item in items), self._videos_per_forward)
        # The first that runs waits for the batch.
        return [partial(lambda number: passes()[number](), number) for number in range(count)]

    def _loss(self, batch: Batch, inputs: LossInputs) -> Measured:
        """Return the loss of one micro-batch, and weighted sums of what it measured."""
        loss_N, measured = self._objective(inputs)
        if loss_N.shape != batch.t_N.shape:
            raise ConfigError(
                f"objective.name={self._objective.name}: the loss must have one value per item, "
                f"{list(batch.t_N.shape)}, got shape {list(loss_N.shape)}"
            )
        loss_N = loss_N * batch.example_weight_N
        measured = {LOSS: loss_N.detach(), **measured}
        sums = {name: (value.detach() * batch.weight_N).sum() for name, value in measured.items()}
        return (loss_N * batch.weight_N).sum(), sums

    def _open(
        self, step: int, examples: Sequence[TrainingExample], positions: Sequence[int]
    ) -> list[Example]:
        """Fetch latents and embeddings of some examples at once."""
        chosen = [(position, examples[position]) for position in positions]
        handles = [
            media
            for _, example in chosen
            for media in (
                *(scored.candidate.latents for scored in example.candidates),
                example.prompt_embeds,
            )
        ]
        opened = iter(self._fetch(handles))
        return [
            Example(
                latents_RCTHW=_stacked([next(opened) for _ in example.candidates], example),
                prompt_embeds=next(opened),
                seed=derive_seed(self._seed, "example", step, index),
                weight=example.weight,
            )
            for index, example in chosen
        ]


def _stacked(latents: Sequence[Tensor], example: TrainingExample) -> Tensor:
    shapes = [list(tensor.shape) for tensor in latents]
    if any(shape != shapes[0] for shape in shapes):
        raise VideoError(
            f"the videos of prompt {example.prompt.index} ({example.prompt.text!r}) have latents "
            f"of different shapes, {', '.join(map(str, shapes))}; one example is one prompt "
            "sampled at one size"
        )
    return torch.stack(list(latents))

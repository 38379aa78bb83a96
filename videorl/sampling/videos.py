"""Videos of texts, outside of any run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from videorl.errors import PromptError
from videorl.protocols import Policy
from videorl.seeds import derive_seed
from videorl.types import Condition, Video

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.embedding import Embedding


class Sampler(Protocol):
    """Samples latents as a policy does."""

    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Return final latents [B, C, T, H, W], one per seed, for a single prompt."""
        ...


def sample_videos(
    policy: Policy,
    prompts: Sequence[Condition],
    *,
    negative_prompt: str,
    num: int,
    seed: int,
    sampler: Sampler | None = None,
    on_refused: Callable[[PromptError], None] | None = None,
) -> Iterator[list[Video]]:
    """Yield for each prompt its `num` videos; seeds depend on `seed`, prompt and number alone.

    Args:
        policy: A policy with transformer, VAE and text encoder.
        prompts: Texts to sample for, each with its picture if the model takes one.
        negative_prompt: Text that guidance steers away from.
        num: Videos per prompt, >= 1.
        seed: The seeds of the initial noise derive from it.
        sampler: Samples in the policy's place, e.g. guided by a reward; the policy still decodes.
        on_refused: Called for a prompt that the policy cannot encode, which then has no videos;
            None = the error is raised.

    Raises:
        PromptError: A prompt cannot be encoded, and there is no `on_refused`.
    """
    import torch

    with torch.no_grad():
        negative = policy.encode([negative_prompt])[0]
        for prompt in prompts:
            text = prompt if isinstance(prompt, str) else prompt.text
            seeds = [derive_seed(seed, "sample", text, number) for number in range(num)]
            try:
                (embeds,) = policy.encode([prompt])
            except PromptError as error:
                if on_refused is None:
                    raise
                on_refused(error)
                yield []
                continue
            yield policy.decode((sampler or policy).sample(embeds, negative, seeds))

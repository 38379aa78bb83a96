"""Scored groups by hand, for tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from videorl.embedding import plain
from videorl.types import (
    Candidate,
    PreferencePair,
    Prompt,
    Score,
    ScoredCandidate,
    ScoredGroup,
    WeightVersion,
)

VERSION = WeightVersion(0, "0" * 64)


def scored_candidate(
    index: int,
    total: float,
    latents: object = None,
    dimensions: Mapping[str, float] | None = None,
) -> ScoredCandidate:
    """Return candidate `index` of prompt 0 with a total score, of one dimension by default."""
    candidate = Candidate(
        round=0,
        prompt=Prompt(0, "a red square"),
        index=index,
        seed=index,
        version=VERSION,
        latents=latents,
        video=None,
    )
    return ScoredCandidate(candidate, Score(dimensions or {"quality": total}, total))


def scored_group(
    totals: Sequence[float], *, candidates: Sequence[ScoredCandidate] | None = None
) -> ScoredGroup:
    """Return a group with one candidate per total, or with the given ones."""
    if candidates is None:
        candidates = [scored_candidate(index, total) for index, total in enumerate(totals)]
    embeds = plain(torch.zeros(2, 4))
    return ScoredGroup(Prompt(0, "a red square"), embeds, tuple(candidates), {})


def random_pair(
    index: int, latent_shape: tuple[int, int, int, int], embed_width: int
) -> PreferencePair:
    """Return a pair of prompt `index` with random latents [C, T, H, W] and embedding [3, D]."""
    generator = torch.Generator().manual_seed(index)
    chosen, rejected = (torch.randn(latent_shape, generator=generator) for _ in range(2))
    return PreferencePair(
        prompt=Prompt(index, f"prompt {index}"),
        prompt_embeds=plain(torch.randn(3, embed_width, generator=generator)),
        chosen=scored_candidate(0, 1.0, chosen),
        rejected=scored_candidate(1, 0.0, rejected),
        margin=1.0,
    )

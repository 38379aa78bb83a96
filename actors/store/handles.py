"""Records and examples that name fewer media: what nobody needs any more is freed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from videorl.types import (
    Candidate,
    Media,
    PreferencePair,
    PromptExample,
    ScoredCandidate,
    ScoredGroup,
    StepRecord,
    TrainingExample,
)

Change: TypeAlias = Callable[[Candidate], Candidate]


def changed(scored: ScoredCandidate, change: Change) -> ScoredCandidate:
    """Return a scored candidate with the media that `change` leaves it."""
    return replace(scored, candidate=change(scored.candidate))


def changed_group(group: ScoredGroup, change: Change) -> ScoredGroup:
    """Return a group with the media that `change` leaves its candidates."""
    return replace(group, candidates=tuple(changed(one, change) for one in group.candidates))


def changed_example(example: TrainingExample, change: Change) -> TrainingExample:
    """Return an example with the media that `change` leaves its candidates."""
    if isinstance(example, PreferencePair):
        chosen, rejected = (changed(one, change) for one in example.candidates)
        return replace(example, chosen=chosen, rejected=rejected)
    return replace(example, candidate=changed(example.candidate, change))


def to_learn_from(
    example: TrainingExample | PromptExample,
) -> TrainingExample | PromptExample:
    """Return an example with what a learner opens: latents and embeddings, no videos."""
    if isinstance(example, PromptExample):
        return example
    return changed_example(example, lambda candidate: replace(candidate, video=None))


def to_archive(
    record: StepRecord, files: Mapping[str, Media], *, keeps_latents: bool
) -> StepRecord:
    """Return a record with what the archive opens, each once.

    Args:
        record: Of a step.
        files: Candidate id -> its mp4 file, or None where there is none.
        keeps_latents: Whether latents are archived too.
    """

    def opened(candidate: Candidate) -> Candidate:
        latents = candidate.latents if keeps_latents else None
        return replace(candidate, video=files.get(candidate.id), latents=latents)

    def named(candidate: Candidate) -> Candidate:
        return replace(candidate, video=None, latents=None)

    groups = (changed_group(group, opened) for group in record.groups)
    examples = (changed_example(example, named) for example in record.examples)
    return replace(
        record,
        groups=tuple(replace(group, prompt_embeds=None) for group in groups),
        examples=tuple(replace(example, prompt_embeds=None) for example in examples),
    )

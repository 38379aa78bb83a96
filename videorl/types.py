"""The nouns of the pipeline.

Axis legend, used as suffixes of tensor names everywhere:
N examples, R roles (chosen, rejected), B batch, C channels, T latent frames, H height, W width,
F pixel frames, L text tokens, D embedding width, G candidates per prompt, K score dimensions.

`t` is flow time in [0, 1]; 1 is pure noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Media: TypeAlias = Any
"""A tensor or video, or a handle to one (a Ray `ObjectRef`): the loop passes it on unopened."""


@dataclass(frozen=True, slots=True)
class Video:
    """Decoded pixels: `frames` is uint8 [F, H, W, 3] (RGB), `fps` is frames per second (> 0)."""

    frames: npt.NDArray[np.uint8]
    fps: float


@dataclass(frozen=True, slots=True)
class TextAndImage:
    """A text, and the picture that its video begins with: a path, or `BLANK`."""

    text: str
    image: str


Condition: TypeAlias = str | TextAndImage
"""What a policy encodes, and the key of a cache of embeddings: a text, or one with a picture."""

BLANK = "blank"
"""The picture of texts of our own (the canary's, for instance): grey, of the size of the video.
Models that take no picture ignore it. Paths of prompts are absolute, and never this."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One text of the prompt stream; `index` is its position there and never repeats in a run."""

    index: int
    text: str
    id: str = ""
    """The user's own name of the text; empty = none."""
    tags: tuple[str, ...] = ()
    image: str = ""
    """Absolute path of the picture that its video begins with, or `BLANK`; empty = none."""

    @property
    def condition(self) -> Condition:
        """Return what a policy encodes of it."""
        return TextAndImage(self.text, self.image) if self.image else self.text


@dataclass(frozen=True, slots=True)
class WeightVersion:
    """Weights published after optimizer step `step`; `digest` is a SHA-256 of their values."""

    step: int
    digest: str


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Work for a generator: one candidate per seed, for one prompt, from one weight version."""

    round: int
    prompt: Prompt
    seeds: tuple[int, ...]
    version: WeightVersion
    num_steps: int = 0
    """Stop after so many of the solver's steps, with noisy latents (a rehearsal); 0 = take all."""
    first: int = 0
    """Index of the first candidate: above 0 in a later part of a prompt's request."""
    is_behind: bool = False
    """It gives way to what training waits for."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One sampled video. `latents` is [C, T, H, W] before decoding, `video` a `Video`.

    On a cluster both are handles, and None as soon as nobody needs them any more.
    """

    round: int
    prompt: Prompt
    index: int
    seed: int
    version: WeightVersion
    """The version whose digest the generator recomputed from its live parameters."""
    latents: Media
    video: Media

    @property
    def id(self) -> str:
        """Unique name within a run, stable under retries."""
        return f"r{self.round:06d}-p{self.prompt.index:06d}-c{self.index:02d}"


@dataclass(frozen=True, slots=True)
class CandidateGroup:
    """The candidates of one prompt, with its `Embedding`."""

    prompt: Prompt
    prompt_embeds: Media
    candidates: tuple[Candidate, ...]
    dropped: Mapping[str, int] = field(default_factory=dict[str, int])
    """Reason -> number of candidates that were sampled in vain, e.g. `{"latents_not_finite": 1}`.
    They are not among `candidates`."""
    is_behind: bool = False
    """It gives way to what training waits for."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a reward model says of one video."""

    dimensions: Mapping[str, float]
    total: float
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the model put out before any normalisation."""
    by_model: Mapping[str, float] = field(default_factory=dict[str, float])
    """Reward model -> its own total, before its weight; empty in the score of a single model."""


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate with its (finite) score."""

    candidate: Candidate
    score: Score
    unseen: Mapping[str, float] = field(default_factory=dict[str, float])
    """Quality metrics that no reward sees; they reveal reward hacking."""


@dataclass(frozen=True, slots=True)
class ScoredGroup:
    """The scored candidates of one prompt; those lost on the way are counted in `dropped`."""

    prompt: Prompt
    prompt_embeds: Media
    candidates: tuple[ScoredCandidate, ...]
    dropped: Mapping[str, int]
    """Reason -> number of candidates, e.g. `{"score_not_finite": 1}`."""


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two candidates of one prompt; `margin` (> 0) is how much higher the chosen one ranks."""

    prompt: Prompt
    prompt_embeds: Media
    chosen: ScoredCandidate
    rejected: ScoredCandidate
    margin: float

    @property
    def candidates(self) -> tuple[ScoredCandidate, ...]:
        """What is learned from, by role."""
        return self.chosen, self.rejected

    @property
    def weight(self) -> float:
        """Its factor in the loss: all pairs count alike."""
        return 1.0


@dataclass(frozen=True, slots=True)
class WeightedCandidate:
    """A candidate that is learned from alone; its loss is multiplied by `weight` (>= 0)."""

    prompt: Prompt
    prompt_embeds: Media
    candidate: ScoredCandidate
    weight: float

    @property
    def candidates(self) -> tuple[ScoredCandidate, ...]:
        """What is learned from, by role."""
        return (self.candidate,)


def weigh(group: ScoredGroup, candidate: ScoredCandidate, weight: float = 1.0) -> WeightedCandidate:
    """Give a candidate of `group` a weight."""
    return WeightedCandidate(group.prompt, group.prompt_embeds, candidate, weight)


def in_order(group: ScoredGroup) -> list[ScoredCandidate]:
    """Return the candidates by index, whatever order they arrived in."""
    return sorted(group.candidates, key=lambda scored: scored.candidate.index)


TrainingExample: TypeAlias = PreferencePair | WeightedCandidate
"""What is learned of scored groups; those of a step are of the kind that its objective needs."""


@dataclass(frozen=True, slots=True)
class PromptExample:
    """A prompt that a learner samples for by itself, with its `Embedding`s."""

    prompt: Prompt
    prompt_embeds: Media
    negative_prompt_embeds: Media
    """Of what guidance steers away from."""


@dataclass(frozen=True, slots=True)
class PromptOutcome:
    """What became of one prompt of the stream; every prompt that was taken has exactly one."""

    prompt: Prompt
    outcome: str
    """`trained`, or the reason why nothing was learned from it."""
    error: str | None = None
    """What was said last about a group that was lost whole."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """What one optimizer step was given and what it made."""

    step: int
    outcomes: tuple[PromptOutcome, ...]
    """One per prompt of the round, in stream order."""
    groups: tuple[ScoredGroup, ...]
    examples: tuple[TrainingExample, ...]
    sampled: WeightVersion
    """The weights that the round was sampled with."""
    published: WeightVersion
    """The weights that the step made."""
    reference: WeightVersion
    """The reference after the step."""

    @property
    def pairs(self) -> tuple[PreferencePair, ...]:
        """The examples that are pairs."""
        return tuple(example for example in self.examples if isinstance(example, PreferencePair))

    @property
    def weighted(self) -> tuple[WeightedCandidate, ...]:
        """The examples that are single candidates."""
        return tuple(example for example in self.examples if isinstance(example, WeightedCandidate))


@dataclass(frozen=True, slots=True)
class LearnerOutput:
    """What one optimizer step gives back: the new weights' version and logged numbers."""

    version: WeightVersion
    metrics: Mapping[str, float]

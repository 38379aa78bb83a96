"""What learner ranks are told to do, one command after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from videorl.types import (
    Media,
    PromptExample,
    SampleRequest,
    TrainingExample,
    WeightVersion,
)


@dataclass(frozen=True, slots=True)
class Step:
    """Apply optimizer step `step` to examples, and publish the weights."""

    step: int
    examples: tuple[TrainingExample | PromptExample, ...]


@dataclass(frozen=True, slots=True)
class Train:
    """Apply optimizer step `step` of a learner that reads its own examples."""

    step: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Sample with the live policy, as a generator would."""

    request: SampleRequest
    embeds: Media
    negative_embeds: Media


@dataclass(frozen=True, slots=True)
class UpdateReference:
    """Make the reference the policy of `version`."""

    version: WeightVersion


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint."""

    loop_state: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Export:
    """Write the trained model in its published format to a directory."""

    directory: str
    node: str = ""
    """Id of the node whose directory it is; empty = all nodes see it."""


@dataclass(frozen=True, slots=True)
class RehearseStep:
    """Go forward and backward once, without an update."""

    examples: tuple[TrainingExample | PromptExample, ...]


@dataclass(frozen=True, slots=True)
class RehearseCheckpoint:
    """Write a checkpoint, read it and remove it."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """Do nothing: takes the place of a rehearsal, which is not replayed."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the ranks."""


Rehearse: TypeAlias = RehearseStep | RehearseCheckpoint
Command: TypeAlias = (
    Step | Train | Sample | UpdateReference | Save | Export | Rehearse | Nothing | Stop
)


@dataclass(frozen=True, slots=True)
class Restored:
    """Where the learner stands after a start."""

    index: int
    """The next command it will ask for."""
    versions: tuple[WeightVersion, ...]
    """Published versions still in use, the newest last."""
    loop_state: dict[str, Any] | None
    num_parameters: int = 0
    """Of a policy's transformer."""

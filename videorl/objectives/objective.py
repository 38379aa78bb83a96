"""What an objective is: its settings, what it learns from, and a pure loss.

An objective is a dataclass in one file. Its fields are the settings of a recipe's `objective`
section, `__call__` is the loss. `videorl.objectives.OBJECTIVES` has the built-in ones; a recipe
names one of your own as `module:attribute`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from videorl.errors import ConfigError
from videorl.selection import Selection
from videorl.settings.bounds import Problem, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from videorl.protocols import Process, Role
    from videorl.types import ScoredGroup, TrainingExample

Examples: TypeAlias = "Callable[[ScoredGroup], Sequence[TrainingExample]]"
"""What makes training examples of a scored group, possibly none."""

LearnsFrom: TypeAlias = Literal["pairs", "candidates", "prompts"]

LOSS = "learn/loss"
EXAMPLES = "learn/examples"
ACCURACY = "learn/accuracy"
MARGIN = "learn/margin"
NOT_FINITE = "learn/not_finite"
SKIPPED = "optimizer/skipped"
"""Names that are shared by all objectives: the mean loss, how many examples a step had, where an
objective decides between two videos, how often it is right and by how much, and how many examples
were left out because their numbers are not finite; and whether the step made no update. Other
names have a prefix of the objective's own."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an objective may ask about the rest of its recipe, to find contradictions."""

    family: str
    """`policy.family`."""
    is_rectified_flow: bool
    """The family predicts velocities of a rectified flow, not noise or v of a diffusion."""
    selection: Selection
    num_inference_steps: int


@dataclass
class Objective(ABC):
    """What all objectives have."""

    name: str = ""
    learns_from: ClassVar[LearnsFrom]
    """`pairs` of a chosen and a rejected video, single `candidates` with weights, or `prompts`
    alone, for which the learner samples by itself."""
    logs: ClassVar[tuple[str, ...]] = ()
    """Names that the loss may log beside `learn/loss` and `learn/examples`."""

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings, alone or together with the rest of the recipe."""
        yield None


@dataclass(frozen=True, slots=True)
class LossInputs:
    """What a loss may look at: one item is one example at one time; its roles share the noise.

    Roles R are (chosen, rejected) of a pair, or the only candidate. All tensors are float32.
    """

    process: Process
    t_N: Tensor
    """Times in [0, 1]; 1 is pure noise."""
    errors: Mapping[Role, Tensor]
    """Mean squared errors of the predictions [N, R], of the policy with gradient, and of the roles
    that the objective names in `frozen_roles`."""
    predictions: Mapping[Role, Tensor]
    """The predictions themselves, [N, R, C, T, H, W]."""
    x_t_NRCTHW: Tensor
    """Noisy latents that were predicted from."""
    target_NRCTHW: Tensor
    """What should have been predicted, e.g. the velocity."""
    clean_NRCTHW: Tensor
    noise_NRCTHW: Tensor

    @property
    def err_NR(self) -> Tensor:
        """The policy's errors, with gradient."""
        return self.errors["policy"]

    @property
    def ref_err_NR(self) -> Tensor:
        """The reference's errors, without gradient."""
        return self.of(self.errors, "reference")

    @property
    def base_err_NR(self) -> Tensor:
        """The errors of the model before any training of this run, without gradient."""
        return self.of(self.errors, "base")

    def of(self, values: Mapping[Role, Tensor], role: Role) -> Tensor:
        """Return what is known of a role.

        Raises:
            ConfigError: The objective did not ask for it.
        """
        if role not in values:
            raise ConfigError(
                f"the objective looks at the {role}, which was not computed: `frozen_roles` must "
                f"name it, got {', '.join(sorted(values))}"
            )
        return values[role]


FrozenRole: TypeAlias = Literal["reference", "base"]


@dataclass
class CandidateObjective(Objective):
    """Learns from candidates that generators sampled: pairs of them, or single ones.

    Your own objective inherits this one, sets `learns_from`, and has `__call__`.
    """

    timesteps_per_pair: int = 4
    """Times at which every pair, or single candidate, is learned in its step, >= 1."""

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        yield at_least("objective.timesteps_per_pair", self.timesteps_per_pair, 1)

    def frozen_roles(self, video_pixels: int) -> frozenset[FrozenRole]:
        """Return the frozen models whose predictions the loss looks at; each costs a forward.

        Args:
            video_pixels: Frames times height times width of a video.
        """
        return frozenset({"reference"})

    def examples(self, selection: Selection) -> Examples:
        """Return what makes the examples of a scored group: the pairs of the recipe's rule."""
        return selection

    @abstractmethod
    def __call__(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss of each item [N], with gradient, and values to log [N], without.

        Which names are logged depends on the settings alone: micro-batches and ranks are summed.
        """


@dataclass
class RewardObjective(Objective):
    """Follows the gradient of the reward itself, through the end of a sampling chain."""

    learns_from: ClassVar[LearnsFrom] = "prompts"
    stop_from: float = 0.75
    """Share of the sampler's steps before a chain may stop, in [0, 1); where it does is drawn per
    video."""
    gradient_steps: int = 1
    """Calls of the model, the last ones before a chain stops, that carry gradient, >= 1."""
    checkpoint_decode: bool = False
    """Decode and score one video at a time, and each again in the backward pass, there a few frames
    at a time: less memory, more time, same result. For videos of real size."""
    decode_tile_px: int = 0
    """Side of the squares in which frames are decoded, a multiple of 4 latents (32 pixels, or 64
    with a VAE of 16 pixels per latent); 0 = whole frames. It bounds memory for large frames where
    `checkpoint_decode` is on. Squares overlap by a quarter and are blended, which is not quite the
    picture of the whole."""

    def first_stop(self, num_steps: int) -> int:
        """Return the earliest of the sampler's steps, counted from 0, at which a chain may stop."""
        return min(math.ceil(self.stop_from * num_steps), num_steps - 1)

    def problems(self, around: Surroundings) -> Iterator[Problem]:
        """Yield what is wrong with the settings."""
        num_steps = around.num_inference_steps
        if not 0 <= self.stop_from < 1:
            yield f"objective.stop_from must be >= 0 and < 1, got {self.stop_from}"
        elif not 1 <= self.gradient_steps <= self.first_stop(num_steps):
            yield (
                "objective.gradient_steps must be >= 1 and leave at least one step without "
                f"gradient: with sampling.num_inference_steps={num_steps} and "
                f"objective.stop_from={self.stop_from} at most {self.first_stop(num_steps)}, got "
                f"{self.gradient_steps}"
            )
        if self.decode_tile_px < 0 or self.decode_tile_px % 32:
            yield (
                f"objective.decode_tile_px must be 0 or a multiple of 32, got {self.decode_tile_px}"
            )
        elif self.decode_tile_px and not self.checkpoint_decode:
            yield (
                f"objective.decode_tile_px={self.decode_tile_px} needs "
                "objective.checkpoint_decode=true: without it all squares are held at once"
            )

    @abstractmethod
    def __call__(self, reward_N: Tensor) -> Tensor:
        """Return the loss of each video [N] for its total reward [N], with gradient."""

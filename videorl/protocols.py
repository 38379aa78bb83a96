"""The verbs of the pipeline: what each replaceable part can do.

The first group is torch-facing and runs inside one process. The second is what the training loop
sees; each of its parts may be local or a pool of remote workers, so they answer with futures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from videorl.types import (
    CandidateGroup,
    Condition,
    LearnerOutput,
    SampleRequest,
    Score,
    ScoredGroup,
    StepRecord,
    TrainingExample,
    Video,
    WeightVersion,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from videorl.embedding import Embedding

Role: TypeAlias = Literal["policy", "reference", "base"]
"""Whose weights predict: the policy's, the reference's, or those that the run started from."""


class Process(Protocol):
    """A noising process: how clean latents are corrupted, and what the model then predicts.

    Both are linear in video and noise, and take tensors of any shape [B, ...].
    """

    def corrupt(self, x0_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
        """Return x_t for times `t_B` in [0, 1]."""
        ...

    def target(self, x0_BCTHW: Tensor, noise_BCTHW: Tensor, t_B: Tensor) -> Tensor:
        """Return what the model should predict at x_t."""
        ...

    def decompose(
        self, x_t_BCTHW: Tensor, prediction_BCTHW: Tensor, t_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the clean latents and the noise that x_t consists of, if the prediction is right.

        The inverse of `corrupt` and `target`; differentiable.
        """
        ...

    def sample_times(self, uniform_B: Tensor) -> Tensor:
        """Map uniform numbers in [0, 1) to training times in [0, 1]."""
        ...

    def guidance_factor(self, t_B: Tensor) -> Tensor:
        """Return by how much a gradient added to the score of x_t lowers the target, [B] >= 0."""
        ...


class Policy(Protocol):
    """One diffusers model family, with its trained weights and its frozen reference."""

    @property
    def process(self) -> Process:
        """How the model was trained: what it sees at a time t, and what it then predicts."""
        ...

    def encode(self, prompts: Sequence[Condition]) -> list[Embedding]:
        """Return one embedding per prompt, without padding that the model ignores."""
        ...

    def sample(
        self,
        prompt_embeds: Embedding,
        negative_prompt_embeds: Embedding | None,
        seeds: Sequence[int],
    ) -> Tensor:
        """Return final latents [B, C, T, H, W], one per seed, for a single prompt.

        The negative embedding may be None if the recipe asks for no guidance.
        """
        ...

    def decode(self, latents_BCTHW: Tensor) -> list[Video]:
        """Decode latents to videos."""
        ...

    def predict(
        self, x_t_BCTHW: Tensor, t_B: Tensor, prompt_embeds: Sequence[Embedding], role: Role
    ) -> Tensor:
        """Return the conditional prediction of a role, with gradient for the policy alone.

        `base` is the model before any training: without adapters, or a frozen copy of it.
        """
        ...

    def trainable_module(self) -> torch.nn.Module:
        """Return the module whose `requires_grad` parameters an optimizer should hold."""
        ...

    def networks(self) -> Sequence[torch.nn.Module]:
        """Return the modules that compute for any role, each once; that of the policy first."""
        ...

    def live(self, role: Role) -> Sequence[torch.nn.Parameter]:
        """Return the live parameters of `weights`, or for the reference of `reference_weights`."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """Return the trained tensors by name, detached, on CPU, in the publication dtype."""
        ...

    def load_weights(self, weights: Mapping[str, Tensor], role: Role = "policy") -> None:
        """Copy published tensors into the live parameters of `role`; names must match exactly."""
        ...

    def reference_weights(self) -> dict[str, Tensor]:
        """Return the reference's tensors under the same names as `weights`."""
        ...

    def update_reference(self) -> None:
        """Copy the policy's weights into the reference, in place."""
        ...

    def export(self, directory: Path) -> None:
        """Write the trained weights in the format that diffusers pipelines load."""
        ...


class DifferentiablePolicy(Policy, Protocol):
    """A policy through whose samples a gradient flows, from their pixels to its weights."""

    def sample_partly(
        self,
        prompt_embeds: Sequence[Embedding],
        negative_prompt_embeds: Sequence[Embedding],
        seeds: Sequence[int],
        steps: Sequence[int],
        longest: int,
    ) -> tuple[Tensor, Tensor]:
        """Take only the first of the sampler's steps, without gradient.

        Args:
            prompt_embeds: One per video, each of a prompt of its own.
            negative_prompt_embeds: The same of what guidance steers away from; read only with
                guidance.
            seeds: Of each video's noise.
            steps: Steps (>= 1) that each video takes.
            longest: Steps for which the model is called whatever `steps` are (>= all of them):
                ranks that share a sharded model must call it equally often.

        Returns:
            The noisy latents [B, C, T, H, W], each after its own steps, in float32; and the times
            in [0, 1] at which the sampler's steps begin, one per `sampling.num_inference_steps`.
        """
        ...

    def pixels(self, latents_BCTHW: Tensor, *, in_pieces: bool = False, tile_px: int = 0) -> Tensor:
        """Decode latents to pixels [B, F, 3, H, W] in [0, 1], differentiably, in float32.

        `in_pieces` holds the activations of a few frames at a time, which are computed again in
        the backward pass; with `tile_px` > 0 those of a square of so many pixels a side.
        """
        ...

    def encode_video(self, video: Video) -> Tensor:
        """Return the latents [C, T, H, W] of a video, without gradient.

        Raises:
            VideoError: It is not of the size that the policy samples.
        """
        ...


class RewardModel(Protocol):
    """Anything that scores videos against their prompts on named dimensions."""

    @property
    def dimensions(self) -> tuple[str, ...]:
        """Names of what is scored; the same for every video."""
        ...

    def score(self, videos: Sequence[Video], prompts: Sequence[str]) -> list[Score]:
        """Return one score per video, in order."""
        ...


class DifferentiableReward(RewardModel, Protocol):
    """A reward model whose scores have a gradient with respect to pixels.

    Its own total is the sum of its dimensions.
    """

    def score_pixels(self, videos_BF3HW: Tensor, fps: float, prompts: Sequence[str]) -> Tensor:
        """Return the scores [B, K] of `dimensions`, in float32, with gradient.

        They are those of `score` but for the rounding of pixels to 8 bits.

        Args:
            videos_BF3HW: RGB in [0, 1], at least two frames each.
            fps: Frames per second of all of them (> 0).
            prompts: One per video.

        Raises:
            VideoError: The videos have a shape that cannot be scored.
            PromptError: A prompt is one that `score` would refuse.
        """
        ...


class SelectionRule(Protocol):
    """What is learned of a group: who is chosen and who is rejected, or what weighs how much."""

    def __call__(self, group: ScoredGroup, /) -> Sequence[TrainingExample]:
        """Return the training examples of one scored group, possibly none."""
        ...


class Generator(Protocol):
    """Samples candidates; a local object or an elastic pool."""

    def submit(self, request: SampleRequest) -> Future[CandidateGroup]:
        """Queue one request; the future fails only if the group is lost for good."""
        ...


class Scorer(Protocol):
    """Scores candidate groups; a local object or a pool of reward workers."""

    def submit(self, group: CandidateGroup) -> Future[ScoredGroup]:
        """Queue one group for scoring."""
        ...


class Learner(Protocol):
    """Owns the policy's optimizer and publishes new weights after every step, a round."""

    def start(self) -> tuple[WeightVersion, Mapping[str, Any] | None]:
        """Build or restore; return the current version and the loop state saved with it."""
        ...

    def step(self, step: int, examples: Sequence[Any]) -> LearnerOutput:
        """Make the optimizer updates of a step, none without examples; publish version `step + 1`.

        Examples are `TrainingExample`s, or `PromptExample`s of a learner that samples by itself.
        """
        ...

    def update_reference(self, version: WeightVersion) -> None:
        """Make the reference equal to the policy, which must be at `version`."""
        ...

    def save(self, loop_state: Mapping[str, Any]) -> Future[None]:
        """Write a checkpoint atomically, with the loop's own state inside, in the background."""
        ...


class ReferenceUpdater(Protocol):
    """Decides when the reference becomes the policy and remembers which version it is."""

    def after_step(self, version: WeightVersion) -> WeightVersion:
        """Swap if due; return the version of the current reference."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Return what `restore` needs, as plain JSON values."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        ...


class MetricSink(Protocol):
    """Somewhere that numbers are shown or written."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step."""
        ...


class Archive(Protocol):
    """Where candidates, scores and pairs are kept."""

    def write(self, record: StepRecord) -> None:
        """Keep one step; writing a step again replaces it."""
        ...

    def flush(self) -> None:
        """Return when everything written so far is on disk."""
        ...

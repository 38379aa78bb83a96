"""The recipe of a reward model's training: dataclasses are the schema and the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from omegaconf import MISSING

from videorl.config import CheckpointConfig, MetricsConfig, OptimizerConfig
from videorl.settings.workers import LearnerConfig


@dataclass
class RewardLoraConfig:
    """Low-rank adapters on every linear layer of the language model (peft), as published."""

    rank: int = 64
    """0 = no adapters: all weights are trained, for models that start from random weights."""
    alpha: int = 128
    dropout: float = 0.05


@dataclass
class RewardModelConfig:
    """Which reward model is trained, from which base, and what it sees of a video."""

    name: str = "video_reward"
    base: str = MISSING
    """Folder or hub id of the vision-language model to start from."""
    dtype: str = "auto"
    """Compute type: float32 or bfloat16; auto = bfloat16 on a GPU. Weights stay in float32."""
    sampled_fps: float = 2.0
    """Frames per second that video_reward looks at; at least 4 frames per video."""
    max_frame_pixels: int = 200704
    min_frame_pixels: int = 100352
    """Smaller frames are enlarged; a lower value saves time where videos are tiny."""
    max_num_frames: int = 16
    """Frames per video that video_score looks at: 16, or 48 as its version 1.1."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time, same result."""
    train_vision: bool = True
    """Train the vision tower too, as for the published model."""
    lora: RewardLoraConfig = field(default_factory=RewardLoraConfig)


@dataclass
class LabelsConfig:
    """Human labels; their format depends on the model, see docs/rewards.md."""

    train: str = MISSING
    held_out: str = ""
    """Used for evaluation, and to normalise scores; empty = neither."""
    videos: str = ""
    """Folder that paths in both files are relative to; empty = the folder of each file."""
    keep_decoded: bool = False
    """Keep decoded frames in the memory of each worker; for small videos."""
    batch_size: int = 32
    """Labelled examples per optimizer step, over all workers."""


@dataclass
class RewardEvaluationConfig:
    """When the held-out examples are scored, besides after the last step."""

    interval: int = 200
    """Steps between evaluations; 0 = only after the last step."""


@dataclass
class RewardRecipe:
    """A whole training of a reward model."""

    command: ClassVar[str] = "train_reward"
    name: str = MISSING
    seed: int = 0
    num_steps: int = 1000
    run_dir: str = "runs/${name}"
    model: RewardModelConfig = field(default_factory=RewardModelConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: RewardEvaluationConfig = field(default_factory=RewardEvaluationConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)


class TrainingRecipe(Protocol):
    """What every recipe of a reward model's training has."""

    seed: int
    num_steps: int
    labels: LabelsConfig
    optimizer: OptimizerConfig
    learner: LearnerConfig
    checkpoint: CheckpointConfig
    evaluation: RewardEvaluationConfig
    metrics: MetricsConfig

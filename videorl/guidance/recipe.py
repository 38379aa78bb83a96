"""The recipe of a latent reward's training (Flow-NRG): schema, defaults and checks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from omegaconf import MISSING

from videorl.config import (
    CheckpointConfig,
    MetricsConfig,
    OptimizerConfig,
    PolicyConfig,
    SamplingConfig,
)
from videorl.errors import ConfigError
from videorl.guidance.config import HEADS, TRAINED
from videorl.recipes.overrides import Overrides
from videorl.recipes.policy_problems import policy_problems, sampling_problems
from videorl.recipes.reading import RECIPES, find_recipe, read_recipe
from videorl.reward_training.config import LabelsConfig, RewardEvaluationConfig
from videorl.reward_training.recipes import training_problems
from videorl.settings.bounds import Problem, above, at_least, one_of
from videorl.settings.workers import LearnerConfig

LATENT_REWARD_RECIPES = RECIPES / "latent_rewards"


@dataclass
class LatentRewardModelConfig:
    """How a latent reward is built on the policy's first layers.

    The paper does not say how many layers it uses, nor what the head is; `docs/benchmarks.md` has
    measurements on Moving Shapes.
    """

    dimensions: list[str] = MISSING
    """Dimensions to score: columns of the label files."""
    num_layers: int = 3
    """Number of first blocks of the policy's transformer to use."""
    head: str = "attention"
    """How tokens are pooled: by `attention` with a query per dimension, or their `mean`."""
    train: str = "blocks"
    """`head`: the head alone; `lora`: adapters of `policy.lora` too; `blocks`: all weights."""


@dataclass
class NoiseConfig:
    """The times of noised latents in training and evaluation; 1 is pure noise."""

    shift: float = 1.0
    """s: training times are s u / (1 + (s - 1) u) of uniform u; 1 = uniform, above 1 = noisier."""
    judged: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9])
    """Times at which held-out pairs are evaluated."""


@dataclass
class LatentRewardRecipe:
    """A whole training of a latent reward, in one process."""

    command: ClassVar[str] = "train_latent_reward"
    name: str = MISSING
    seed: int = 0
    num_steps: int = 1000
    run_dir: str = "runs/${name}"
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    """The policy whose base is used; `policy.lora` are the adapters for `model.train=lora`."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    """How the labelled latents were sampled."""
    model: LatentRewardModelConfig = field(default_factory=LatentRewardModelConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    """CSV files as for reward models; paths are of safetensors files with a tensor `latents`."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Only `micro_batch_size` of this section is used."""
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: RewardEvaluationConfig = field(default_factory=RewardEvaluationConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)


def load_latent_reward_recipe(name_or_path: str, overrides: Overrides = ()) -> LatentRewardRecipe:
    """Return the validated recipe: defaults, overlaid by the YAML file, overlaid by overrides.

    Args:
        name_or_path: The name of a shipped recipe, or the path of a YAML file.
        overrides: `key=value` with dotted keys.

    Raises:
        ConfigError: No such recipe, an unknown key, a value of the wrong type or out of range, or a
            required key left out.
    """
    path = find_recipe(name_or_path, LATENT_REWARD_RECIPES)
    recipe = read_recipe(LatentRewardRecipe, path, overrides)
    if problems := [problem for problem in _problems(recipe) if problem]:
        raise ConfigError("\n".join([f"recipe {recipe.name}:", *problems]))
    return recipe


def _problems(recipe: LatentRewardRecipe) -> Iterator[Problem]:
    model, noise = recipe.model, recipe.noise
    yield from training_problems(recipe)
    yield from policy_problems(recipe.policy)
    yield from sampling_problems(recipe.sampling)
    if recipe.policy.lora.initial is not None:
        yield (
            "policy.lora.initial must be left out: a latent reward is built on the policy's base, "
            f"got {recipe.policy.lora.initial!r}"
        )
    yield at_least("model.num_layers", model.num_layers, 1)
    yield one_of("model.head", model.head, HEADS)
    yield one_of("model.train", model.train, TRAINED)
    if model.train == "lora":
        yield at_least("policy.lora.rank", recipe.policy.lora.rank, 1)
    if not model.dimensions or len(set(model.dimensions)) < len(model.dimensions):
        yield f"model.dimensions must name at least one, each once, got {model.dimensions}"
    yield above("noise.shift", noise.shift, 0)
    if not noise.judged or not all(0 <= time <= 1 for time in noise.judged):
        yield f"noise.judged must be times in [0, 1], at least one, got {noise.judged}"
    yield at_least("labels.batch_size", recipe.labels.batch_size, 1)
    if recipe.learner.num_workers != 1 or recipe.learner.max_workers > 1:
        yield "learner.num_workers must be 1: latent rewards are trained in one process"

"""Find, read and validate recipes of reward-model training."""

from __future__ import annotations

from collections.abc import Iterator

from videorl.errors import ConfigError
from videorl.recipes.overrides import Overrides
from videorl.recipes.reading import RECIPES, find_recipe, read_recipe
from videorl.recipes.validation import checkpoint_problems, optimizer_problems
from videorl.recipes.worker_problems import learner_problems, without_rounds
from videorl.reward_training.config import RewardRecipe, TrainingRecipe
from videorl.reward_training.tasks import TASKS
from videorl.settings.bounds import Problem, above, at_least, one_of
from videorl.settings.tracking import metrics_problems

REWARD_RECIPES = RECIPES / "rewards"
DTYPES = ("auto", "float32", "bfloat16")


def load_reward_recipe(name_or_path: str, overrides: Overrides = ()) -> RewardRecipe:
    """Return the validated recipe: defaults, overlaid by the YAML file, overlaid by overrides.

    Args:
        name_or_path: The name of a shipped recipe, or the path of a YAML file.
        overrides: `key=value` with dotted keys.

    Raises:
        ConfigError: No such recipe, an unknown key, a value of the wrong type or out of range, or a
            required key left out.
    """
    recipe = read_recipe(RewardRecipe, find_recipe(name_or_path, REWARD_RECIPES), overrides)
    if problems := [problem for problem in _problems(recipe) if problem]:
        raise ConfigError("\n".join([f"recipe {recipe.name}:", *problems]))
    return recipe


def training_problems(recipe: TrainingRecipe) -> Iterator[Problem]:
    """Check the settings that the training of any reward model has."""
    yield at_least("num_steps", recipe.num_steps, 1)
    yield at_least("seed", recipe.seed, 0)
    yield from optimizer_problems(recipe.optimizer)
    yield from learner_problems(recipe.learner)
    yield from without_rounds(recipe.learner)
    yield one_of("learner.context_parallel", recipe.learner.context_parallel, (1,))
    yield from checkpoint_problems(recipe.checkpoint)
    yield at_least("evaluation.interval", recipe.evaluation.interval, 0)
    yield from metrics_problems(recipe.metrics)


def _problems(recipe: RewardRecipe) -> Iterator[Problem]:
    model, labels, workers = recipe.model, recipe.labels, recipe.learner.num_workers
    yield from training_problems(recipe)
    yield one_of("model.name", model.name, TASKS)
    yield one_of("model.dtype", model.dtype, DTYPES)
    yield above("model.sampled_fps", model.sampled_fps, 0)
    yield at_least("model.min_frame_pixels", model.min_frame_pixels, 1)
    yield at_least("model.max_frame_pixels", model.max_frame_pixels, model.min_frame_pixels)
    yield at_least("model.max_num_frames", model.max_num_frames, 1)
    yield at_least("model.lora.rank", model.lora.rank, 0)
    yield at_least("model.lora.alpha", model.lora.alpha, 1)
    if model.name == "video_score" and model.lora.rank:
        yield (
            "model.lora.rank must be 0 for video_score, whose checkpoints have no adapters, "
            f"got {model.lora.rank}"
        )
    if not 0 <= model.lora.dropout < 1:
        yield f"model.lora.dropout must be in [0, 1), got {model.lora.dropout}"
    if labels.batch_size < 1 or labels.batch_size % workers:
        yield (
            f"labels.batch_size must be a multiple of learner.num_workers ({workers}), "
            f"got {labels.batch_size}"
        )

"""The Python API: `videorl.train`, `videorl.score` and `videorl.sample`, in this process.

Ray is started only where it is asked for.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import entry_points
from pathlib import Path, PurePath
from typing import Any, cast

from videorl.errors import ConfigError, PromptError, VideoError
from videorl.recipes.overrides import Override
from videorl.recipes.reading import load_recipe, load_rewards
from videorl.run.folder import RunFolder, open_run
from videorl.run.stopping import stop_on_signal
from videorl.storage.copies import uri_of
from videorl.storage.place import is_uri
from videorl.types import Score, Video


def train(
    recipe: str | Path | Mapping[str, Any] = "moving_shapes",
    *,
    runner: str = "process",
    address: str | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Align a policy, or go on with a run, and return its summary.

    Example:
        videorl.train("moving_shapes", num_steps=4, objective={"beta": 100})

    Args:
        recipe: The name of a shipped recipe, the path of a YAML file, or a recipe as a dict.
        runner: `process` = everything in this process; `ray` = on Ray, as `videorl train` does.
        address: A running Ray cluster, with `runner="ray"`.
        settings: Keys of the recipe with other values; sections are dicts.

    Returns:
        What `summary.json` of the run folder holds, and `run_dir`. `is_finished` is False, and the
        rest is missing, where a signal stopped the run: the same call goes on with it.

    Raises:
        ConfigError: The recipe or a setting is wrong, or there is no such runner.
    """
    made = load_recipe(recipe, overrides_of(settings))
    if not is_uri(made.run_dir):
        made.run_dir = str(Path(made.run_dir).absolute())
    if runner != "process":
        with open_run(made) as folder:
            is_finished = _runner(runner)(made, folder, address)
        return _summary(folder, is_finished)
    from videorl.one_process import run

    is_main = threading.current_thread() is threading.main_thread()
    signals = stop_on_signal() if is_main else nullcontext(lambda: False)
    with open_run(made) as folder, signals as should_stop:
        is_finished = run(made, folder, should_stop)
    return _summary(folder, is_finished)


def score(
    videos: Sequence[str | Path | Video],
    prompts: Sequence[str],
    rewards: str | Sequence[str] = "moving_shapes",
    **settings: Any,
) -> list[Score]:
    """Score videos against their prompts.

    Example:
        videorl.score(["a.mp4"], ["a red circle moving left"], "video_reward=/models/VideoReward")

    Args:
        videos: Files, or decoded videos.
        prompts: One per video.
        rewards: Reward models, each `name`, `name=path`, or `module:attribute`; several are added
            up.
        settings: Keys of a recipe's `rewards`, for all of them: `weight`, `options`, ...

    Returns:
        One score per video. With several models the dimensions are called `model.dimension`.

    Raises:
        ConfigError: A model or a setting is unknown.
        VideoError: A video cannot be scored.
        PromptError: A prompt cannot be scored.
    """
    from videorl.rewards import load
    from videorl.rewards.scoring import combine, score_each

    names = [rewards] if isinstance(rewards, str) else list(rewards)
    overrides = [
        override
        for index in range(len(names))
        for override in overrides_of(settings, f"rewards.{index}")
    ]
    models = load_rewards(names, None, overrides)
    by_model: dict[str, list[Score]] = {}
    for config in models:
        model = load(config.name, config.path, **config.options)
        found = score_each(model, list(videos), prompts)
        by_model[config.key] = [_score_or_raise(result) for result in found]
    return [
        combine({key: found[index] for key, found in by_model.items()}, models)
        for index in range(len(videos))
    ]


def sample(
    prompts: str | Sequence[str],
    /,
    recipe: str | Path | Mapping[str, Any] = "moving_shapes",
    *,
    image: str | Path | None = None,
    lora: str | Path | None = None,
    num: int = 1,
    seed: int = 0,
    **settings: Any,
) -> list[list[Video]]:
    """Sample videos with the policy code that generators run.

    Example:
        videorl.sample("a large red circle moving left", lora="runs/moving_shapes/aligned")

    Args:
        prompts: A text, or several.
        recipe: Whose policy and sampling settings are used.
        image: File of the picture that the videos begin with, for image-to-video models.
        lora: Folder of aligned weights; None = the base.
        num: Videos per prompt, >= 1.
        seed: Of the initial noise.
        settings: Keys of the recipe with other values, as in `train`.

    Returns:
        For each prompt its `num` videos.
    """
    from videorl.data.prompt_rows import PromptRow
    from videorl.data.prompts import problem_of_images
    from videorl.files.pins import pin_settings
    from videorl.policies import load_policy
    from videorl.run.compute_type import as_in_run_of
    from videorl.run.pins import policy_settings
    from videorl.sampling.videos import sample_videos

    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    if num < 1:
        raise ConfigError(f"num must be >= 1, got {num}")
    initial = {} if lora is None else {"policy": {"lora": {"initial": str(lora)}}}
    made = load_recipe(recipe, [*overrides_of(settings), *overrides_of(initial)])
    made = as_in_run_of(made, [recipe, lora])
    pin_settings(policy_settings(made), {})
    parts = frozenset({"transformer", "vae", "text_encoder"})
    picture = "" if image is None else str(Path(image).absolute())
    rows = [PromptRow(text, image=picture) for text in texts]
    if problem := problem_of_images(rows, made.policy.family):
        raise ConfigError(problem)
    policy = load_policy(made.policy, made.sampling, parts=parts, seed=made.seed)
    negative_prompt = made.sampling.negative_prompt
    conditions = [row.prompt(0).condition for row in rows]
    videos = sample_videos(policy, conditions, negative_prompt=negative_prompt, num=num, seed=seed)
    return list(videos)


def overrides_of(settings: Mapping[str, Any], prefix: str = "") -> list[Override]:
    """Return settings from Python as overrides; sections are dicts of what differs."""
    start = f"{prefix}." if prefix else ""
    return [Override(f"{start}{name}", _plain(value)) for name, value in settings.items()]


def _plain(value: Any) -> Any:
    """Return what YAML can say too: paths as text, tuples as lists."""
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in cast("Any", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("Any", value)]
    return value


def _runner(name: str) -> Any:
    """Return what runs a recipe elsewhere: an entry point, so that this package needs no Ray."""
    runners = {found.name: found for found in entry_points(group="videorl.runners")}
    if name not in runners:
        known = ", ".join(["process", *sorted(runners)])
        raise ConfigError(f"runner must be one of {known}, got {name!r}")
    return runners[name].load()


def _summary(folder: RunFolder, is_finished: bool) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(folder.summary.read_text()) if is_finished else {}
    return {**found, "is_finished": is_finished, "run_dir": uri_of(folder.root) or str(folder.root)}


def _score_or_raise(result: Score | VideoError | PromptError) -> Score:
    if isinstance(result, Score):
        return result
    raise result

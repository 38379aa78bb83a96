"""A run of an ablation from start to result, in this process."""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from videorl import __version__
from videorl.ablation.plan import Run
from videorl.ablation.results import contents
from videorl.ablation.stored_pairs import sample_pairs
from videorl.config import OfflineConfig, Recipe, RewardConfig
from videorl.errors import WorkLostError
from videorl.evaluation.held_out import sample_and_score
from videorl.evaluation.kept_groups import KeptGroups, path_of
from videorl.evaluation.record import read_groups, write_groups
from videorl.files.steps import step_name
from videorl.loop import train
from videorl.objectives.objective import EXAMPLES
from videorl.one_process import local_parts, local_pools, train_alone
from videorl.recipes.fingerprint import recipe_fingerprint
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics
from videorl.types import ScoredCandidate, ScoredGroup, WeightVersion
from videorl.weights import digest

Trainer = Callable[[Recipe, RunFolder], None]
"""Takes the recipe to `num_steps`, from its newest checkpoint if there is one, and exports."""


def execute(run: Run, root: Path) -> dict[str, Any]:
    """Train, evaluate, and return the result as JSON values; a run that was cut off goes on.

    Args:
        run: The arm, its seed, and when it is evaluated.
        root: Folder of run folders; this run's is removed when the run is done.
    """
    torch.set_num_threads(1)
    started, cpu_started = time.perf_counter(), time.process_time()
    # A half-done run under other defaults cannot go on: it is left there, and a new one begins.
    name = f"{run.digest[:16]}-{recipe_fingerprint(run.recipe)[:8]}"
    recipe = replace(run.recipe, run_dir=str(root / name))
    with (
        open_run(recipe) as folder,
        (folder.root / "log.txt").open("a") as log,
        contextlib.redirect_stderr(log),
    ):
        evaluations = [
            {"step": stop, "values": values(_evaluated(run, recipe, folder, stop))}
            for stop in run.stops
        ]
        rows = read_metrics(folder.metrics) if folder.metrics.exists() else []
    shutil.rmtree(folder.root)
    return {
        "digest": run.digest,
        "settings": run.settings,
        "label": run.label,
        "recipe": run.arm.recipe,
        "overrides": dict(run.arm.overrides),
        "pairs": run.arm.pairs,
        "seed": run.recipe.seed,
        "steps": run.stops[-1],
        "evaluations": evaluations,
        "inputs": contents(recipe),
        "examples": sum(row.get(EXAMPLES, 0) for row in rows),
        "cpu_seconds": round(time.process_time() - cpu_started, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "videorl": __version__,
            "python": platform.python_version(),
            **{name: installed(name) for name in ("torch", "diffusers", "peft")},
        },
    }


def values(groups: Sequence[ScoredGroup]) -> dict[str, list[float]]:
    """Return measure -> for each held-out prompt, the mean over its samples.

    Measures are the three dimensions of the Moving Shapes oracle and their sum `total`, whatever
    was trained on; `reward`, the recipe's own total; dimensions of other reward models as
    `model.dimension`; and the unseen metrics.
    """
    rows = [[_values_of(scored) for scored in group.candidates] for group in groups]
    return {
        name: [round(fmean(sample[name] for sample in row), 5) for row in rows]
        for name in rows[0][0]
    }


def _values_of(scored: ScoredCandidate) -> dict[str, float]:
    dimensions = scored.score.dimensions.items()
    found = {name.removeprefix("moving_shapes."): value for name, value in dimensions}
    total = sum(found[name] for name in MovingShapesReward.dimensions)
    return {"total": total, "reward": scored.score.total, **found, **scored.unseen}


def _evaluated(run: Run, recipe: Recipe, folder: RunFolder, stop: int) -> list[ScoredGroup]:
    """Train until `stop` and evaluate, unless an earlier try did."""
    path = folder.evaluation / f"{step_name(stop)}.json"
    if not path.exists():
        if stop:
            trainer(run)(replace(recipe, num_steps=stop), folder)
        write_groups(path, evaluate(recipe, folder.export if stop else None, folder.evaluation))
    return read_groups(path)


def trainer(run: Run) -> Trainer:
    """Return the function that trains this run."""
    if run.recipe.objective.learns_from == "prompts":
        return lambda recipe, folder: _finish(train_alone(recipe, folder, lambda: False))
    if run.arm.pairs == "stored":
        return lambda recipe, folder: _train_stored(run.recipe, recipe, folder)
    return _train_online


def _finish(is_finished: bool) -> None:
    if not is_finished:
        raise RuntimeError("the run stopped before its last step")


def _train_online(recipe: Recipe, folder: RunFolder) -> None:
    sink = JsonlSink(folder.metrics)
    parts, progress, learner = local_parts(recipe, folder, sink)
    sink.truncate(progress.step)
    train(recipe, parts, progress, lambda: False)
    learner.export(folder.export)
    learner.close()


def _train_stored(whole: Recipe, recipe: Recipe, folder: RunFolder) -> None:
    """Sample what the whole run will learn from, then learn from it until `recipe.num_steps`."""
    archive = folder.root / "stored"
    sample_pairs(whole, archive)
    offline = replace(recipe, offline=OfflineConfig(str(archive)))
    _finish(train_alone(offline, folder, lambda: False))


def evaluate(recipe: Recipe, adapter: Path | None, kept: Path) -> list[ScoredGroup]:
    """Sample and score the held-out prompts with an exported adapter; None = with the base.

    Groups are kept in the folder `kept` as they come, for when this is cut off and tried again.
    """
    lora = replace(recipe.policy.lora, initial=None if adapter is None else str(adapter))
    policy = replace(recipe.policy, lora=lora)
    recipe = replace(recipe, policy=policy, rewards=judges(recipe))
    generator, scorer, weights = local_pools(recipe, lambda _: weights)
    version = WeightVersion(0, digest(weights))
    groups = sample_and_score(
        recipe,
        version,
        generator,
        scorer,
        samples=recipe.evaluation.samples,
        should_stop=lambda: False,
        kept=KeptGroups(path_of(kept, recipe, version)),
    )
    assert groups is not None
    if len(groups) < recipe.evaluation.num_prompts or any(group.dropped for group in groups):
        raise WorkLostError(
            "a held-out prompt was lost, so runs cannot be compared prompt by prompt"
        )
    return groups


def judges(recipe: Recipe) -> list[RewardConfig]:
    """Return the recipe's rewards, and the Moving Shapes oracle if it is not among them."""
    if any(reward.key == "moving_shapes" for reward in recipe.rewards):
        return recipe.rewards
    return [*recipe.rewards, RewardConfig(name="moving_shapes", weight=0.0)]

"""Shipped recipes for two steps on Ray and under DeepSpeed, on tiny models of their family.

Most are `long`: every recipe runs in `tests/unit/test_one_process.py`, and a cluster gives the same
numbers, for each family by the same code (`test_single_process.py`, `test_run_faults.py`).
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from actors.assembly import assemble
from actors.learner_run import run_learner_only
from tests.ray.ranks import kill_rank
from tests.small_runs import small_recipe
from tests.video_pairs import save_video_pairs
from videorl.config import Recipe
from videorl.data.archive import check, read_table
from videorl.errors import ResourceError
from videorl.loop import train
from videorl.one_process import train_alone
from videorl.recipes.reading import RECIPES, load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

NAMES = sorted(file.stem for file in RECIPES.glob("*.yaml"))
ALONE = [name for name in NAMES if not load_recipe(name).learns_online]
# `moving_shapes` itself is run for six steps, with and without faults, in `test_run_faults.py`;
# `moving_shapes_dpo` differs from it in numbers alone.
ONLINE = sorted({*NAMES} - {*ALONE, "moving_shapes", "moving_shapes_dpo"})


def run_online(recipe: Recipe) -> RunFolder:
    """Run the whole loop with its pools."""
    with (
        open_run(recipe) as folder,
        assemble(recipe, folder, JsonlSink(folder.metrics)) as assembly,
    ):
        train(recipe, assembly.parts, assembly.progress, lambda: False)
    return folder


@pytest.mark.long
@pytest.mark.parametrize("name", ONLINE)
def test_a_recipe_learns_for_two_steps(
    name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe(name, tiny_checkpoints, tmp_path / "run")
    folder = run_online(recipe)
    rows = read_metrics(folder.metrics)
    assert len(rows) == 2
    loss, is_pair = rows[0]["learn/loss"], recipe.objective.learns_from == "pairs"
    assert loss == pytest.approx(math.log(2), abs=1e-6) if is_pair else loss > 0
    assert check(folder.archive, 2) == []
    published = read_table(folder.archive, "steps")["published_digest"].to_pylist()
    assert len(set(published)) == 2, "every step changed the weights"


@pytest.mark.long  # test_guarded_on_ray.py always runs one of them
@pytest.mark.parametrize("name", ALONE)
def test_a_recipe_without_pools_learns_for_two_steps_and_is_compared_with_its_base(
    name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe(name, tiny_checkpoints, tmp_path / "run")
    recipe.evaluation.source, recipe.evaluation.num_prompts = "moving_shapes", 2
    recipe.evaluation.best_of = recipe.evaluation.samples = recipe.evaluation.num_videos = 1
    with open_run(recipe) as folder:
        assert run_learner_only(recipe, folder, lambda: False)
    rows = read_metrics(folder.metrics)
    assert len(rows) == 2
    assert all(row["optimizer/grad_norm"] > 0 for row in rows)
    assert all(row["learn/loss"] == pytest.approx(-row["reward/total"]) for row in rows)
    assert any(folder.export.iterdir())
    summary = json.loads(folder.summary.read_text())
    assert summary["policy_version"]["step"] == 2
    assert [stage["count"] for stage in summary["stages"]] == [2, 0]
    assert summary["evaluation"]["num_prompts"] == 2
    assert summary["evaluation"]["total"]["difference"]["mean"] != 0
    assert "<video" in (folder.root / "report.html").read_text()


def test_a_comparison_without_room_is_refused_before_training(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe("moving_shapes_refl", tiny_checkpoints, tmp_path / "run")
    recipe.evaluation.source, recipe.rewards[0].num_cpus = "moving_shapes", 1000
    with open_run(recipe) as folder, pytest.raises(ResourceError, match=r'evaluation\.source=""'):
        run_learner_only(recipe, folder, lambda: False)
    assert not folder.metrics.exists()


@pytest.mark.parametrize("is_interrupted", [False, pytest.param(True, marks=pytest.mark.long)])
def test_offline_on_videos_has_the_numbers_of_one_process_despite_a_kill_and_a_stop(
    is_interrupted: bool, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe("moving_shapes", tiny_checkpoints, tmp_path / "local")
    recipe.offline.archive = str(save_video_pairs(tmp_path / "archive"))
    recipe.num_steps, recipe.reference.interval, recipe.checkpoint.interval = 4, 2, 0
    with open_run(recipe) as local:
        assert train_alone(recipe, local, lambda: False)
    recipe.run_dir = str(tmp_path / "ray")
    with open_run(recipe) as folder:
        if is_interrupted:

            def has_two() -> bool:
                return folder.metrics.exists() and len(read_metrics(folder.metrics)) == 2

            assert not run_learner_only(recipe, folder, has_two)

        def kill_once() -> bool:
            if is_interrupted and len(read_metrics(folder.metrics)) == 3:
                kill_rank()
            return False

        assert run_learner_only(recipe, folder, kill_once)
    assert any(folder.export.iterdir())
    rows, expected = read_metrics(folder.metrics), read_metrics(local.metrics)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    for name in ("learn/loss", "learn/margin", "optimizer/grad_norm", "reference/version_step"):
        wanted = [row[name] for row in expected]
        assert [row[name] for row in rows] == pytest.approx(wanted, rel=1e-3, abs=1e-4), name

"""Every shipped recipe learns: two steps of its own settings, on tiny models of its family."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.small_runs import small_recipe
from videorl.audit import audit
from videorl.data.archive import check, read_table
from videorl.loop import train
from videorl.objectives.dpo import FlowDPO
from videorl.one_process import local_parts
from videorl.recipes.reading import RECIPES, load_recipe
from videorl.run.folder import open_run
from videorl.run.sinks import JsonlSink, read_metrics

ONLINE = sorted(
    file.stem
    for file in RECIPES.glob("*.yaml")
    if load_recipe(file.stem).learns_online  # see learning/test_from_rewards.py
)


@pytest.mark.parametrize("name", ONLINE)
def test_a_shipped_recipe_learns_for_two_steps(
    name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = small_recipe(name, tiny_checkpoints, tmp_path / "run")
    with open_run(recipe) as folder:
        parts, progress, _ = local_parts(recipe, folder, JsonlSink(folder.metrics))
        version, _ = parts.learner.start()
        train(recipe, parts, progress, lambda: False)
    rows = read_metrics(folder.metrics)
    assert len(rows) == 2
    loss = rows[0]["learn/loss"]
    if isinstance(recipe.objective, FlowDPO) and recipe.objective.sft_weight:
        loss -= recipe.objective.sft_weight * rows[0]["dpo/chosen_error"]
    # Pairs: the policy is the reference. Single candidates: their squared errors.
    assert (
        loss == pytest.approx(math.log(2), abs=1e-6)
        if recipe.objective.learns_from == "pairs"
        else loss > 0
    )
    assert check(folder.archive, 2) == []
    assert audit(folder).contradictions == ()
    published = read_table(folder.archive, "steps")["published_digest"].to_pylist()
    assert len({version.digest, *published}) == 3, "every step changed the weights"

"""ReFL at its recipe's rate hacks the learned reward, and is stopped in time.

The shipped recipe with its own model, reward and guard; only the evaluations are smaller. A tiny
one: `tests/unit/evaluation/test_hacking.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import export
from videorl import one_process
from videorl.errors import GuardError
from videorl.evaluation.readings import read_readings
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import RunFolder, open_run
from videorl.run.guard_notes import read_notes

INTERVAL = 4
SETTINGS = (
    f"evaluation.interval={INTERVAL}",
    "evaluation.during_prompts=8",
    "evaluation.during_samples=1",
    "checkpoint.keep=1",
)


@pytest.mark.long
def test_refl_at_its_recipes_rate_is_stopped_in_time(tmp_path: Path) -> None:
    recipe = load_recipe("moving_shapes_refl", [f"run_dir={tmp_path / 'run'}", *SETTINGS])
    assert recipe.guard.action == "stop", "as it is shipped"
    with open_run(recipe) as folder, pytest.raises(GuardError, match=r"export .* --step \d+"):
        one_process.train_alone(recipe, folder, lambda: False)
    folder = RunFolder(tmp_path / "run")
    readings = read_readings(folder.root)
    base, last = readings[0], readings[-1]
    assert last.step <= 0.75 * recipe.num_steps
    assert last.mean("reward/total") > base.mean("reward/total") + 1, "no reward would have told"
    sharper = [
        reading.mean("unseen/sharpness") / base.mean("unseen/sharpness") for reading in readings
    ]
    assert sharper == sorted(sharper) and sharper[-1] > 3
    (before,) = {alarm["before"] for alarm in read_notes(folder.root)["alarms"]}
    assert 0 < before < last.step and sharper[before // INTERVAL] < 3
    assert before in CheckpointFolder(folder.root / "checkpoints", 1).steps()
    out = tmp_path / "before"
    assert export.main([str(folder.root), "--step", str(before), "--out", str(out)]) == 0
    assert (out / "pytorch_lora_weights.safetensors").is_file()

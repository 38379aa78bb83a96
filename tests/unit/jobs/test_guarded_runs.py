"""The guard in whole runs of a tiny model: warned, stopped, set back, gone on with.

On Ray: `tests/ray/test_guarded_on_ray.py`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from jobs import export
from tests.guarded_runs import NO_OTHER_RULE, limit
from tests.small_runs import small_recipe
from tests.unit.evaluation.test_during import SETTINGS, Killed, go
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.errors import GuardError
from videorl.evaluation.readings import read_readings
from videorl.run import rollback
from videorl.run.changes import read_changes
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import RunFolder
from videorl.run.guard_notes import read_notes, write_notes
from videorl.run.sinks import read_metrics


def make(checkpoints: Mapping[str, Path], run_dir: Path, **guard: object) -> Recipe:
    settings = {**SETTINGS, **NO_OTHER_RULE, "evaluation.interval": 2, "checkpoint.keep": 1}
    settings |= {"evaluation.during_prompts": 6}
    settings |= {f"guard.{name}": value for name, value in guard.items()}
    return small_recipe("moving_shapes", checkpoints, run_dir, settings)


@pytest.fixture(scope="module")
def bands(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = go(make(tiny_checkpoints, tmp_path_factory.mktemp("off") / "run", action="off"))
    assert read_notes(folder.root) == {"alarms": [], "rollbacks": [], "rates": []}
    return limit(read_readings(folder.root))


def steps(folder: RunFolder) -> list[int]:
    return [row["step"] for row in read_metrics(folder.metrics)]


def test_a_stopped_run_says_why_keeps_the_best_and_goes_on_only_if_told(
    bands: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    folder, recipe = RunFolder(run), make(tiny_checkpoints, run, bands=bands)
    said = rf"stopped {run} at step 4: .* times that of the base .*export {run} --step 2"
    for _ in range(2):  # the same command ends the same way
        with pytest.raises(GuardError, match=said):
            go(recipe)
        assert steps(folder) == [0, 1, 2, 3, 4]
    (alarm,) = read_notes(run)["alarms"]
    assert (alarm["step"], alarm["rule"], alarm["before"]) == (4, "band", 2)
    assert "Alarms of the guard" in folder.root.joinpath("report.html").read_text()
    assert 2 in CheckpointFolder(run / "checkpoints", 1).steps()
    assert export.main([str(run), "--step", "2", "--out", str(tmp_path / "best")]) == 0
    assert (tmp_path / "best/pytorch_lora_weights.safetensors").is_file()
    go(make(tiny_checkpoints, run, bands=bands, action="warn"))
    assert steps(folder) == [0, 1, 2, 3, 4, 5]
    assert json.loads(folder.summary.read_text())["num_steps"] == 6


def test_a_run_that_is_set_back_goes_on_from_its_best_with_a_smaller_rate(
    bands: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    limits = {"bands": bands, "action": "rollback", "rate_factor": 1e-6, "max_rollbacks": 1}
    folder = go(make(tiny_checkpoints, run, **limits))
    assert steps(folder) == [0, 1, 2, 3, 4, 5]
    rates = [row["optimizer/learning_rate"] for row in read_metrics(folder.metrics)]
    assert [rate > 1e-3 for rate in rates] == [True, True, False, False, False, False]
    notes = read_notes(run)
    assert [row["to"] for row in notes["rollbacks"]] == [2]
    assert [row["step"] for row in notes["alarms"]] == [4], "with the smaller rate there is none"
    (changed,) = read_changes(run)
    assert (changed.key, changed.step) == ("optimizer.learning_rate", 2)
    assert changed.after == pytest.approx(changed.before * 1e-6)
    readings = read_readings(run)
    assert [reading.step for reading in readings] == [0, 2, 4]
    digests = read_table(folder.archive, "steps")["published_digest"].to_pylist()
    assert [reading.digest for reading in readings[1:]] == [digests[1], digests[3]]
    assert [row["action"] for row in notes["alarms"]] == ["rollback"]
    assert go(make(tiny_checkpoints, run, **limits)).root == run, "it is finished"


@pytest.mark.parametrize("killed_at", ["remove_after", "write_notes"])
def test_a_kill_while_it_is_set_back_costs_no_rollback(
    killed_at: str,
    bands: str,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same command finishes what was begun: once back, with the rate of one rollback."""
    run = tmp_path / "run"
    limits = {"bands": bands, "action": "rollback", "rate_factor": 1e-6, "max_rollbacks": 1}

    def kill(*given: object) -> None:
        if killed_at != "write_notes" or given[1]["rollbacks"][-1]["is_done"]:  # pyright: ignore
            raise Killed
        write_notes(*given)  # pyright: ignore

    place = CheckpointFolder if killed_at == "remove_after" else rollback
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(place, killed_at, kill)
        go(make(tiny_checkpoints, run, **limits))
    folder = go(make(tiny_checkpoints, run, **limits))
    assert steps(folder) == [0, 1, 2, 3, 4, 5]
    assert [row["to"] for row in read_notes(run)["rollbacks"]] == [2]
    rates = [row["optimizer/learning_rate"] for row in read_metrics(folder.metrics)]
    assert [1e-9 < rate < 1e-6 for rate in rates] == [False, False, True, True, True, True]
    assert len(read_changes(run)) == 1
    assert read_table(folder.archive, "steps")["step"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_a_run_without_an_earlier_checkpoint_stops_and_keeps_what_it_has(
    bands: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """The disk was full at step 2: what was saved later is not thrown away for it."""
    run = tmp_path / "run"
    recipe = make(tiny_checkpoints, run, bands=bands, action="rollback")
    kept = CheckpointFolder(run / "checkpoints", 9)
    begun = rollback.begin_going_back

    def lose(*given: Any) -> bool:
        for step in (2, 3):
            shutil.rmtree(run / f"checkpoints/step-{step:06d}", ignore_errors=True)
        return begun(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rollback, "begin_going_back", lose)
        with pytest.raises(GuardError, match="there is no checkpoint of step 2, or before"):
            go(recipe)
    assert kept.steps() == [4]
    assert read_notes(run)["rollbacks"] == []
    assert (run / "report.html").exists()

"""The guard on Ray: it sends a run back, and stops a learner that is alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from actors.learner_run import run_learner_only
from actors.online_run import run_online
from jobs import export
from tests.guarded_runs import NO_OTHER_RULE, limit
from tests.ray.whole_runs import STEPS, assert_same_archive, overrides
from tests.small_runs import small_recipe
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.errors import GuardError, ResourceError
from videorl.evaluation.readings import read_readings
from videorl.one_process import train_alone, train_online
from videorl.recipes.reading import load_recipe
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import RunFolder, open_run
from videorl.run.guard_notes import read_notes
from videorl.run.rollback import guarded
from videorl.run.sinks import read_metrics

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("cluster")]

RATE, FACTOR = "optimizer.learning_rate", 0.1
WATCHED: dict[str, object] = {
    **NO_OTHER_RULE,
    "evaluation.source": "moving_shapes",
    "evaluation.num_prompts": 6,
    "evaluation.best_of": 1,
    "evaluation.samples": 1,
    "evaluation.num_videos": 0,
    "evaluation.interval": 2,
    "evaluation.during_prompts": 6,
    "evaluation.during_samples": 1,
    "checkpoint.keep": 1,
}


def num_rows(folder: RunFolder) -> int:
    return len(read_metrics(folder.metrics)) if folder.metrics.exists() else 0


def one_process(recipe: Recipe, until: int, *changes: str) -> RunFolder:
    """Run, or go on, until so many steps are done."""
    work = train_online if recipe.learns_online else train_alone
    with open_run(recipe, change=changes) as folder:
        work(recipe, folder, lambda: num_rows(folder) >= until)
    return folder


def online(checkpoint: Path, run_dir: Path, **guard: object) -> Recipe:
    settings = {key.replace(".", "__"): value for key, value in WATCHED.items()}
    settings |= {f"guard__{name}": value for name, value in guard.items()}
    settings |= {"optimizer__learning_rate": 0.5, "objective__sft_weight": 6}
    return load_recipe("moving_shapes", overrides(checkpoint, run_dir, **settings))


def test_a_run_that_is_set_back_and_ends_there_goes_on(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """All that it does is what a run does whose rate a person changed at the same checkpoint.

    So policy, reference, optimizer and generators were those of the checkpoint. Set back, it does
    not start its workers again but ends: they take most of the time here, and the next start of the
    command does the same.
    """
    checkpoint = tiny_checkpoints["wan"]
    plain = one_process(online(checkpoint, tmp_path / "plain", action="off"), 2)
    shutil.copytree(plain.root, tmp_path / "expected")
    one_process(online(checkpoint, plain.root, action="off"), 5)
    bands = limit(read_readings(plain.root))
    changed = online(checkpoint, tmp_path / "expected", action="off")
    changed.optimizer.learning_rate *= FACTOR
    one_process(changed, STEPS, RATE)

    limits = {"bands": bands, "action": "rollback", "rate_factor": FACTOR, "max_rollbacks": 1}
    recipe = online(checkpoint, tmp_path / "run", **limits)

    def until_set_back(made: Recipe) -> bool:
        was_back = bool(read_notes(folder.root)["rollbacks"])
        return not was_back and run_online(made, folder, lambda: False)

    def to_the_end(made: Recipe) -> bool:
        return run_online(made, folder, lambda: False)

    with open_run(recipe) as folder:
        assert not guarded(recipe, folder.root, until_set_back, lambda: None)
        assert [row["to"] for row in read_notes(folder.root)["rollbacks"]] == [2]
        assert guarded(recipe, folder.root, to_the_end, lambda: None)
    notes = read_notes(folder.root)
    assert [row["to"] for row in notes["rollbacks"]] == [2]
    assert [row["step"] for row in notes["alarms"]] == [4]
    rates, wanted = (
        [row["optimizer/learning_rate"] for row in read_metrics(place / "metrics.jsonl")]
        for place in (folder.root, tmp_path / "expected")
    )
    assert rates == pytest.approx(wanted) and rates[2] < 2 * FACTOR * rates[1]
    assert_same_archive(folder.root, tmp_path / "expected")
    readings = read_readings(folder.root)
    digests = read_table(folder.archive, "steps")["published_digest"].to_pylist()
    assert [(each.step, each.digest) for each in readings[1:]] == [(2, digests[1]), (4, digests[3])]


def alone(checkpoints: dict[str, Path], run_dir: Path, **guard: object) -> Recipe:
    settings = {**WATCHED, "num_steps": STEPS, "optimizer.learning_rate": 1e-1}
    settings |= {f"guard.{name}": value for name, value in guard.items()}
    return small_recipe("moving_shapes_refl", checkpoints, run_dir, settings)


def test_a_learner_that_is_alone_is_watched_goes_on_and_is_stopped(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """As in one process; the best checkpoint before the alarm is kept, and can be exported.

    It is stopped first as soon as an evaluation is begun, which goes on with the run.
    """
    plain = one_process(alone(tiny_checkpoints, tmp_path / "plain", action="off"), 5)
    expected = read_readings(plain.root)
    recipe = alone(tiny_checkpoints, tmp_path / "run", bands=limit(expected))
    with open_run(recipe) as folder:
        assert not run_learner_only(recipe, folder, lambda: num_rows(folder) == 2)
        with pytest.raises(GuardError, match=r"at step 4: .*export .* --step 2"):
            run_learner_only(recipe, folder, lambda: False)
    rows = read_metrics(folder.metrics)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4]
    assert [row.get("evaluation/step") for row in rows] == [None, 0, None, 2, None]
    assert all("pool/generator_workers" in row for row in rows)
    found = read_readings(folder.root)
    assert [each.step for each in found] == [0, 2, 4]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.prompts == theirs.prompts
        for name in theirs.values:
            assert mine.mean(name) == pytest.approx(theirs.mean(name), rel=2e-2, abs=2e-2), name
    kept = CheckpointFolder(folder.root / "checkpoints", 1).steps()
    assert {2, 5} <= {*kept}
    assert export.main([str(folder.root), "--step", "2", "--out", str(tmp_path / "best")]) == 0
    assert (tmp_path / "best/pytorch_lora_weights.safetensors").is_file()


def test_evaluations_in_between_without_room_are_refused(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = alone(tiny_checkpoints, tmp_path / "run")
    recipe.learner.num_cpus, recipe.generators.num_cpus = 5, 5  # one after the other they fit
    refused = pytest.raises(ResourceError, match=r"every 2 steps.*evaluation\.interval=0 leaves")
    with open_run(recipe) as folder, refused:
        run_learner_only(recipe, folder, lambda: False)
    assert not folder.metrics.exists()

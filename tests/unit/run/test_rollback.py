"""A run goes back only to a checkpoint that is there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.learners import tiny_recipe
from tests.small_runs import small_recipe
from videorl.config import Recipe
from videorl.errors import GuardError, RollbackError, StoreLostError
from videorl.run.changes import read_changes
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import open_run
from videorl.run.guard_notes import FILE
from videorl.run.rollback import guarded


def write(folder: CheckpointFolder, step: int) -> None:
    folder.write(step, {}, {"loop": {"step": step}})


def test_a_run_does_not_go_back_to_a_checkpoint_that_is_not_there(tmp_path: Path) -> None:
    recipe, reports = tiny_recipe(), list[str]()
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", keep=9)
    for step in (4, 6):
        write(checkpoints, step)

    tries = iter([RollbackError("guard, step 6: worse", step=2), KeyError("again")])

    def work(_: Recipe) -> bool:
        raise next(tries)

    with pytest.raises(GuardError, match=r"worse; there is no checkpoint of step 2, or before"):
        guarded(recipe, tmp_path, work, lambda: reports.append("written"))
    assert checkpoints.steps() == [4, 6], "none was removed"
    assert reports == ["written"]
    assert not (tmp_path / FILE).exists()


def test_a_rollback_that_was_cut_off_is_finished_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe()
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", keep=9)
    for step in (2, 4, 6):
        write(checkpoints, step)

    def work(_: Recipe) -> bool:
        raise RollbackError("guard, step 6: worse", step=2)

    def away(*_: object) -> None:
        raise StoreLostError("away")

    with monkeypatch.context() as store:
        store.setattr(CheckpointFolder, "remove_after", away)
        with pytest.raises(StoreLostError):
            guarded(recipe, tmp_path, work, lambda: None)
    found = list[list[int]]()
    assert guarded(recipe, tmp_path, lambda _: not found.append(checkpoints.steps()), lambda: None)
    assert found == [[2]], "it goes on from where it was to go back to"
    write(checkpoints, 4)
    assert guarded(recipe, tmp_path, lambda _: not found.append(checkpoints.steps()), lambda: None)
    assert found[1] == [2, 4], "once only"


def test_a_run_goes_back_with_a_smaller_rate(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", keep=9)
    for step in (2, 4, 6):
        write(checkpoints, step)
    rates = list[float]()

    def work(now: Recipe) -> bool:
        rates.append(now.optimizer.learning_rate)
        if len(rates) == 1:
            raise RollbackError("guard, step 6: worse", step=4)
        return True

    assert guarded(recipe, tmp_path, work, lambda: None)
    assert checkpoints.steps() == [2, 4]
    assert rates[1] == pytest.approx(rates[0] * recipe.guard.rate_factor)
    assert [row["to"] for row in json.loads((tmp_path / FILE).read_text())["rollbacks"]] == [4]


def test_a_rate_that_a_person_sets_after_a_rollback_is_what_he_gets(
    tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Also if it is the recipe's; and a later rollback makes that one smaller."""
    run, rates = tmp_path / "run", list[float]()

    def go(*change: str, back_to: int | None = None) -> float:
        """Start the command; return the rate that it learns with at last."""
        settings = dict(setting.split("=") for setting in change)
        recipe = small_recipe("moving_shapes", tiny_checkpoints, run, settings)
        tries = iter([RollbackError("worse", step=back_to)] if back_to else [])

        def work(now: Recipe) -> bool:
            rates.append(now.optimizer.learning_rate)
            if error := next(tries, None):
                raise error
            return True

        with open_run(recipe, change=[setting.partition("=")[0] for setting in change]) as folder:
            for step in (2, 4):
                if not (folder.root / f"checkpoints/step-{step:06d}").exists():
                    write(CheckpointFolder(folder.root / "checkpoints", keep=9), step)
            assert guarded(recipe, folder.root, work, lambda: None)
        return rates[-1]

    first = go()
    half = first / 2
    assert go(back_to=4) == half
    assert go() == half
    same, other = f"optimizer.learning_rate={first}", f"optimizer.learning_rate={3 * first}"
    assert go(same) == first
    assert go(same, back_to=4) == half
    assert go(same) == half, "the same command started again"
    assert go(other) == 3 * first
    assert go(other, back_to=2) == 1.5 * first
    history = [(each.before, each.after) for each in read_changes(run)]
    assert history == [
        (first, half),
        (half, first),
        (first, half),
        (half, 3 * first),
        (3 * first, 1.5 * first),
    ]

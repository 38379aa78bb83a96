"""A run whose reward is made to be hacked is stopped before it is all black; real learner, sampler,
scoring and evaluation on the tiny policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.hacking import TemporalConsistency
from tests.loop_runs import Run, recipe_with, start
from videorl.errors import GuardError, RollbackError
from videorl.evaluation.during import DuringTraining
from videorl.evaluation.guarding import Guarding
from videorl.evaluation.readings import Reading, read_readings
from videorl.evaluation.unseen import UnseenMetrics
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.guard_notes import read_notes
from videorl.sampling.local import LocalScorer

STEPS = 60
INTERVAL = 5


def hacked(folder: Path) -> Run:
    """Return a run that follows temporal consistency alone, which a black video has."""
    (folder / "held_out.txt").write_text("\n".join(f"ball {n} of many" for n in range(8)))
    recipe = recipe_with(0, interval=0)
    recipe.num_steps, recipe.prompts.candidates_per_prompt = STEPS, 6
    recipe.optimizer.learning_rate, recipe.optimizer.max_grad_norm = 1e-2, 1.0
    recipe.evaluation.source = str(folder / "held_out.txt")
    recipe.evaluation.interval, recipe.evaluation.during_prompts = INTERVAL, 8
    scorer = LocalScorer({"fake": TemporalConsistency()}, recipe.rewards, UnseenMetrics())
    run = start(folder / "checkpoints", recipe)
    guarding = Guarding(recipe, folder, {})
    during = DuringTraining(recipe, folder, run.generator, scorer, False, 0, guarding)
    run.parts = replace(run.parts, scorer=scorer, during=during)
    return run


def test_a_temporal_reward_alone_is_stopped_in_time(tmp_path: Path) -> None:
    run = hacked(tmp_path)
    with pytest.raises(GuardError, match=r"dark_pixel_share is .* times that of the base"):
        run.train(until=STEPS)
    reached = max(run.sink.steps) + 1
    assert reached <= STEPS / 2
    readings = read_readings(tmp_path)
    totals = [reading.mean("reward/total") for reading in readings]
    assert totals[-1] > totals[0], "the reward rose, and no reward would have told"
    dark = [reading.mean("unseen/dark_pixel_share") for reading in readings]
    assert dark[-1] > 3 * dark[0]
    assert dark[-1] < 0.9, "in time: not all is black yet"
    before = {alarm["before"] for alarm in read_notes(tmp_path)["alarms"]}
    kept = CheckpointFolder(tmp_path / "checkpoints", 2).steps()
    assert before - {0} <= {*kept}
    assert reached in kept, "it can be looked at, or gone on with"


def test_without_an_earlier_reading_that_breaks_no_rule_there_is_nothing_to_go_back_to(
    tmp_path: Path,
) -> None:
    recipe = recipe_with(0)
    recipe.guard.patience, recipe.guard.action = 1, "rollback"
    name = "unseen/dynamic_degree"
    values = {"reward/total": [0.0] * 8}
    base = Reading(0, "", tuple(range(8)), {**values, name: [0.5] * 8})
    still = Reading(10, "", tuple(range(8)), {**values, name: [0.3] * 8})
    guarding = Guarding(recipe, tmp_path, {})
    with pytest.raises(GuardError, match="at step 10: motion changed by -40%") as caught:
        guarding.judge([base, still])
    assert not isinstance(caught.value, RollbackError)
    assert "videorl export" not in str(caught.value)
    fine = Reading(5, "", tuple(range(8)), {**values, name: [0.5] * 8})
    with pytest.raises(RollbackError) as back:
        Guarding(recipe, tmp_path, {}).judge([base, fine, still])
    assert back.value.step == 5
    assert guarding.worth_keeping([base, fine, still]) == [5, 0, 0]

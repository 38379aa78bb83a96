"""A run whose reward is made to be hacked is stopped before it is all black; real learner, sampler,
scoring and evaluation on the tiny policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.hacking import FollowedPolicy, TemporalConsistency
from tests.loop_runs import TEXTS, MemorySink, Run, recipe_with, start
from videorl.config import Recipe
from videorl.data.prompts import PromptStream
from videorl.errors import GuardError, RollbackError
from videorl.evaluation.during import DuringTraining
from videorl.evaluation.guarding import Guarding
from videorl.evaluation.readings import Reading, read_readings
from videorl.evaluation.unseen import UnseenMetrics
from videorl.learning.build import step_settings
from videorl.learning.engines.local import LocalEngine
from videorl.learning.from_rewards import FromRewards
from videorl.learning.learner import Learner
from videorl.learning.loop import LearnerParts, train_learner
from videorl.learning.prompts import PromptExamples
from videorl.learning.reference import CurriculumReference, LocalReferenceUpdater
from videorl.objectives.refl import ReFL
from videorl.recipes.reading import load_recipe
from videorl.rewards.differentiable import CombinedReward
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.guard_notes import read_notes
from videorl.sampling.local import LocalGenerator, LocalScorer

STEPS = 60
INTERVAL = 5


def hackable(folder: Path) -> Recipe:
    """Return a recipe that looks at eight held-out prompts."""
    (folder / "held_out.txt").write_text("\n".join(f"ball {n} of many" for n in range(8)))
    recipe = recipe_with(0, interval=0)
    recipe.evaluation.source = str(folder / "held_out.txt")
    recipe.evaluation.interval, recipe.evaluation.during_prompts = INTERVAL, 8
    return recipe


def hacked(folder: Path) -> Run:
    """Return a run that follows temporal consistency alone, which a black video has."""
    recipe = hackable(folder)
    recipe.num_steps, recipe.prompts.candidates_per_prompt = STEPS, 6
    recipe.optimizer.learning_rate, recipe.optimizer.max_grad_norm = 1e-2, 1.0
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


def test_refl_is_stopped_in_time(tmp_path: Path) -> None:
    """With the steps of the shipped recipe, and a rate for a policy that is not an adapter.

    The recipe as it is, with its own rate and model: `tests/unit/jobs/test_refl_hacking.py`.
    """
    recipe, shipped = hackable(tmp_path), load_recipe("moving_shapes_refl")
    recipe.objective, recipe.optimizer = shipped.objective, shipped.optimizer
    recipe.optimizer.learning_rate *= 20
    recipe.num_steps, recipe.prompts.per_round = shipped.num_steps, shipped.prompts.per_round
    recipe.sampling.num_inference_steps = 2
    policy, reward = FollowedPolicy(), TemporalConsistency()
    assert isinstance(recipe.objective, ReFL)
    method = FromRewards(
        policy,  # pyright: ignore[reportArgumentType] # it encodes no video
        recipe.objective,
        CombinedReward({"fake": reward}, recipe.rewards),
        recipe.sampling,
        recipe.seed,
        UnseenMetrics(),
    )
    checkpoints = CheckpointFolder(tmp_path / "checkpoints", 1)
    engine = LocalEngine(policy.trainable_module(), recipe.optimizer)
    learner = Learner(policy, method, engine, step_settings(recipe), checkpoints)
    version, _ = learner.start()
    generator = LocalGenerator(FollowedPolicy(), "", learner.published)
    scorer = LocalScorer({"fake": reward}, recipe.rewards, UnseenMetrics())
    guarding = Guarding(recipe, tmp_path, {})
    during = DuringTraining(recipe, tmp_path, generator, scorer, False, 0, guarding)
    during.begin(version)
    sink, curriculum = MemorySink(), CurriculumReference(0, version)
    parts = LearnerParts(
        PromptExamples(PromptStream(TEXTS, recipe.seed), "", lambda text: policy.encode([text])[0]),
        learner,
        LocalReferenceUpdater(learner, curriculum),
        sink,
        CheckpointNote(tmp_path, recipe.checkpoint),
        during,
    )
    with pytest.raises(GuardError, match=r"dark_pixel_share is .* --step 5` gives the best"):
        train_learner(recipe, parts, 0, lambda: False)
    assert sink.steps[-1] + 1 <= recipe.num_steps / 2
    readings = read_readings(tmp_path)
    assert readings[-1].mean("reward/total") > readings[0].mean("reward/total") + 5
    assert readings[-1].mean("unseen/dark_pixel_share") < 0.9, "in time: not all is black yet"
    assert {alarm["before"] for alarm in read_notes(tmp_path)["alarms"]} == {5}
    assert {5, sink.steps[-1] + 1} <= {*checkpoints.steps()}, "though one alone would be kept"


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

"""Settings that a run in progress may change: asked for, kept with their step, and shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from videorl.audit import audit
from videorl.config import CheckpointConfig, Recipe
from videorl.errors import RunFolderError
from videorl.one_process import train_online
from videorl.recipes.reading import load_recipe
from videorl.report import write_report
from videorl.run.changes import Change, going_on_from, note_changes, read_changes, value_at
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import read_metrics

SETTINGS = (
    "policy.lora.rank=2",
    "sampling.num_inference_steps=2",
    "prompts.per_round=2",
    "prompts.candidates_per_prompt=2",
    "optimizer.warmup_steps=0",
    "optimizer.schedule=constant",
    "optimizer.decay_steps=0",
    "optimizer.learning_rate=0.001",
    "reference.interval=2",
    "checkpoint.interval=2",
    "evaluation.source=",
)


def recipe_of(folder: Path, *overrides: str) -> Recipe:
    return load_recipe("moving_shapes", [f"run_dir={folder}", *overrides])


def refusal(folder: Path, *overrides: str, change: tuple[str, ...] = ()) -> str:
    with (
        pytest.raises(RunFolderError) as refused,
        open_run(recipe_of(folder, *overrides), change=change),
    ):
        pass
    return str(refused.value)


def test_a_change_is_refused_with_the_words_that_make_it_possible(tmp_path: Path) -> None:
    with open_run(recipe_of(tmp_path)) as folder:
        before = folder.config.read_text()
    said = refusal(tmp_path, "objective.beta=7", "rewards.0.weight=2")
    assert "add --change objective.beta=7.0 --change rewards.0.weight=2.0" in said
    said = refusal(tmp_path, "objective.beta=7", "seed=5")
    assert "--change" not in said, "a seed cannot be changed, so it is no way out"
    said = refusal(tmp_path, "seed=5", change=("seed",))
    assert said.startswith("--change seed: a run in progress cannot change it; it may change")
    said = refusal(tmp_path, "objective.beta=7", "seed=5", change=("objective.beta",))
    assert "(seed: 0 -> 5)" in said
    assert folder.config.read_text() == before
    assert read_changes(tmp_path) == []


def test_there_must_be_a_run_to_change(tmp_path: Path) -> None:
    said = refusal(tmp_path / "new", "objective.beta=7", change=("objective.beta",))
    assert "there is no run in" in said
    with open_run(recipe_of(tmp_path)) as folder:
        pass
    with (
        pytest.raises(RunFolderError, match=r"there is no run in .* to go on with"),
        open_run(recipe_of(tmp_path), from_scratch=True, change=("objective.beta",)),
    ):
        pass
    assert folder.config.exists(), "nothing was moved"


def test_what_the_base_was_evaluated_with_stays(tmp_path: Path) -> None:
    with open_run(recipe_of(tmp_path)) as folder:
        folder.evaluation.mkdir()
        (folder.evaluation / "before.json").write_text("[]")
    said = refusal(tmp_path, "evaluation.seed=7", change=("evaluation.seed",))
    assert "the base was evaluated with the old value" in said
    with open_run(recipe_of(tmp_path, "evaluation.samples=2"), change=("evaluation.samples",)):
        pass


def test_a_weight_of_a_dimension_is_a_part_of_its_section(tmp_path: Path) -> None:
    with open_run(recipe_of(tmp_path)):
        pass
    weights = "rewards.0.dimension_weights={color: 2.0}"
    with open_run(recipe_of(tmp_path, weights), change=("rewards.0.dimension_weights",)):
        pass
    (found,) = read_changes(tmp_path)
    assert (found.key, found.before, found.after) == (
        "rewards.0.dimension_weights.color",
        None,
        2.0,
    )


def test_a_base_that_was_scored_with_other_weights_is_kept_but_not_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(recipe_of(tmp_path)) as folder:
        folder.evaluation.mkdir()
        (folder.evaluation / "before.json").write_text("[]")
    with open_run(recipe_of(tmp_path, "rewards.0.weight=2"), change=("rewards.0.weight",)):
        assert [path.name for path in folder.evaluation.iterdir()] == ["before-until-step-0.json"]
    assert "`videorl evaluate" in caplog.text


def test_values_are_known_at_every_step_and_move_back_with_the_checkpoint(tmp_path: Path) -> None:
    first = Change(4, "objective.beta", 500.0, 100.0, "")
    changes = [first, Change(9, "objective.beta", 100.0, 50.0, "")]
    values = [value_at(changes, "objective.beta", step, 50.0) for step in (0, 3, 4, 8, 9, 20)]
    assert values == [500.0, 500.0, 100.0, 100.0, 50.0, 50.0]
    assert value_at(changes, "reference.interval", 0, 3) == 3
    with open_run(recipe_of(tmp_path)):
        pass
    with open_run(recipe_of(tmp_path, "objective.beta=7"), change=("objective.beta",)):
        pass
    going_on_from(tmp_path, 3)
    assert [change.step for change in read_changes(tmp_path)] == [0]


def test_a_change_holds_from_the_newest_checkpoint_even_if_the_driver_died_before_noting_it(
    tmp_path: Path,
) -> None:
    with open_run(recipe_of(tmp_path)) as folder:
        CheckpointNote(folder.root, CheckpointConfig()).saved(2)
    CheckpointFolder(tmp_path / "checkpoints", 2).write(4, {}, {})  # noted as the next begins
    with open_run(recipe_of(tmp_path, "objective.beta=7"), change=("objective.beta",)):
        pass
    assert [change.step for change in read_changes(tmp_path)] == [4]


def test_a_changed_run_is_clean_and_says_what_changed_when(
    tmp_path: Path, tiny_checkpoints: dict[str, Path]
) -> None:
    settings = (*SETTINGS, f"policy.path={tiny_checkpoints['wan']}")
    first = recipe_of(tmp_path / "run", *settings, "num_steps=4")
    with open_run(first) as folder:
        assert train_online(first, folder, lambda: False)
    new = ("optimizer.learning_rate=0.0001", "reference.interval=3")
    second = recipe_of(tmp_path / "run", *settings, "num_steps=7", *new)
    keys = tuple(one.partition("=")[0] for one in new)
    for _ in range(2):  # the same command, started again, changes nothing more
        with open_run(second, change=keys) as folder:
            train_online(second, folder, lambda: False)
    found = [(one.step, one.key, one.before, one.after) for one in read_changes(folder.root)]
    assert found == [
        (4, "optimizer.learning_rate", 0.001, 0.0001),
        (4, "reference.interval", 2, 3),
    ]
    rates = [row["optimizer/learning_rate"] for row in read_metrics(folder.metrics)]
    assert rates == pytest.approx([1e-3] * 4 + [1e-4] * 3)
    assert audit(folder).contradictions == ()
    page = write_report(folder.root).read_text()
    assert "<td>4</td><td>optimizer.learning_rate</td><td>0.001</td><td>0.0001</td>" in page
    (folder.root / "changes.json").unlink()
    assert audit(RunFolder(folder.root)).contradictions, "without its history it is no such run"


@pytest.mark.parametrize(("before", "after"), [("", "split 5"), ("split 5", "split 9")])
def test_prompts_that_were_trained_on_are_not_held_out_later(
    before: str, after: str, tmp_path: Path
) -> None:
    with open_run(recipe_of(tmp_path, f"evaluation.source={before}")):
        pass
    said = refusal(tmp_path, f"evaluation.source={after}", change=("evaluation.source",))
    assert "takes prompts away from training, and the run has trained on others already" in said


def test_readings_are_set_aside_where_others_are_not_comparable_and_each_time(
    tmp_path: Path,
) -> None:
    """How many prompts there are changes no prompt: the base stays, which the guard needs."""
    during = tmp_path / "evaluation/during"

    def left_after(key: str, content: str) -> list[str]:
        during.mkdir(parents=True, exist_ok=True)
        (during / "step-000000.json").write_text(content)
        note_changes(tmp_path, {key: (1, 2)}, 4)
        return sorted(path.name for path in during.parent.iterdir())

    assert left_after("evaluation.during_prompts", "old") == ["during"]
    assert left_after("rewards.0.weight", "old") == ["during-until-step-4"]
    assert left_after("rewards.0.weight", "new") == ["during-until-step-4", "during-until-step-4-2"]
    kept = during.with_name("during-until-step-4-2") / "step-000000.json"
    assert kept.read_text() == "new"

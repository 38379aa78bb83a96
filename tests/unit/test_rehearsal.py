"""Rehearsals in one process: they change nothing, and what fails in them says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.small_runs import small_recipe
from videorl import rehearsal
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.data.archive_tables import SCHEMAS
from videorl.errors import RehearsalError, WorkLostError
from videorl.learning.learner import Learner
from videorl.one_process import train_alone, train_online
from videorl.policies.pipeline_policy import PipelinePolicy
from videorl.recipes.fingerprint import recipe_fingerprint
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import read_metrics
from videorl.sampling.local import LocalScorer
from videorl.types import SampleRequest, WeightVersion


@pytest.fixture
def recipe(tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Recipe:
    made = small_recipe("moving_shapes", tiny_checkpoints, tmp_path / "run")
    made.num_steps, made.rehearsal = 1, "always"
    return made


def finish(recipe: Recipe) -> RunFolder:
    """Train, or go on, to the last step."""
    with open_run(recipe) as folder:
        train = train_online if recipe.learns_online else train_alone
        assert train(recipe, folder, lambda: False)
        return folder


def numbers(folder: RunFolder) -> list[dict[str, float]]:
    """Return the metrics that are not times."""
    rows = read_metrics(folder.metrics)
    return [{name: row[name] for name in row if not name.startswith("time/")} for row in rows]


def weights(folder: RunFolder) -> dict[str, bytes]:
    """Return the newest checkpoint: weights, optimizer, reference."""
    newest = max((folder.root / "checkpoints").iterdir())
    return {file.name: file.read_bytes() for file in newest.glob("*.safetensors")}


@pytest.mark.parametrize("name", ["moving_shapes", "moving_shapes_refl"])
def test_a_run_that_was_rehearsed_has_the_numbers_of_one_that_was_not(
    name: str, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folders: list[RunFolder] = []
    for choice in ("always", "never"):
        recipe = small_recipe(name, tiny_checkpoints, tmp_path / choice)
        recipe.rehearsal = choice
        state = torch.get_rng_state()
        folders.append(finish(recipe))
        torch.set_rng_state(state)
    rehearsed, plain = folders
    assert numbers(rehearsed) == numbers(plain)
    assert weights(rehearsed) == weights(plain)
    assert len(weights(plain)) >= 3
    if recipe.learns_online:
        for table in SCHEMAS:
            columns = [column for column in SCHEMAS[table].names if column != "video"]
            read = [read_table(folder.archive, table, columns) for folder in folders]
            assert read[0].equals(read[1]), table
    assert rehearsed.rehearsal.exists() and not plain.rehearsal.exists()
    assert not (rehearsed.root / "checkpoints/rehearsal").exists()


def test_offline_dpo_rehearses_learner_and_checkpoint(
    recipe: Recipe,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe.archive.latents, recipe.rehearsal = True, "never"
    archive = finish(recipe).archive
    learned = steps_of(monkeypatch, Learner, "rehearse_step")
    saved = steps_of(monkeypatch, Learner, "rehearse_checkpoint")
    folders: list[RunFolder] = []
    for choice in ("always", "never"):
        offline = small_recipe("moving_shapes", tiny_checkpoints, tmp_path / choice)
        offline.offline.archive, offline.num_steps = str(archive), 1
        offline.rehearsal = choice
        folders.append(finish(offline))
    rehearsed, plain = folders
    (((first, *others),),) = learned
    assert others == [first] * (offline.prompts.per_round - 1), "a whole step of one stored pair"
    assert len(saved) == 1
    assert sorted(json.loads(rehearsed.rehearsal.read_text())) == ["checkpoint", "learner"]
    assert not plain.rehearsal.exists()
    assert numbers(rehearsed) == numbers(plain)
    assert weights(rehearsed) == weights(plain)


def steps_of(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[Any]:
    """Return a list that fills with what a method was called with."""
    calls, real = list[Any](), getattr(owner, name)

    def called(self: Any, *given: Any) -> Any:
        calls.append(given)
        return real(self, *given)

    monkeypatch.setattr(owner, name, called)
    return calls


def test_it_samples_as_many_videos_as_ever_at_once_and_few_steps(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.sampling.num_inference_steps = 5
    recipe.evaluation.source, recipe.evaluation.best_of = "moving_shapes", 4
    recipe.evaluation.num_prompts = 1
    calls = steps_of(monkeypatch, PipelinePolicy, "sample_partly")
    learned = steps_of(monkeypatch, Learner, "rehearse_step")
    finish(recipe)
    ((_, _, seeds, steps, longest),) = calls
    assert (len(seeds), steps, longest) == (4, [2] * 4, 2)
    (((pair, *others),),) = learned
    assert others == [pair] * (recipe.prompts.per_round - 1)
    assert pair.chosen.candidate.latents is not pair.rejected.candidate.latents


def test_what_passed_is_not_rehearsed_again_unless_it_changed(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled = steps_of(monkeypatch, PipelinePolicy, "sample_partly")
    learned = steps_of(monkeypatch, Learner, "rehearse_step")
    scored = steps_of(monkeypatch, LocalScorer, "submit")
    saved = steps_of(monkeypatch, Learner, "rehearse_checkpoint")

    def rehearsed(steps: int) -> list[int]:
        """Count what was rehearsed; a step itself scores each of its groups."""
        recipe.num_steps = steps
        for calls in (sampled, scored, learned, saved):
            calls.clear()
        finish(recipe)
        scores = len(scored) - recipe.prompts.per_round
        return [len(sampled), scores, len(learned), len(saved)]

    assert rehearsed(1) == [1, 1, 1, 1]
    assert rehearsed(2) == [0, 0, 0, 0]
    recipe.learner.micro_batch_size = 2
    assert rehearsed(3) == [1, 0, 1, 1], "the learner needs videos"
    finish(recipe)
    assert len(learned) == 1, "a run that is over needs no rehearsal"


def test_no_more_is_sampled_at_once_than_a_request_has(tmp_path: Path) -> None:
    recipe = Recipe(name="parts", run_dir=str(tmp_path), rehearsal="always")
    recipe.generators.candidates_per_request = 2
    asked: list[SampleRequest] = []

    class Generator:
        """Remembers what it was asked."""

        def submit(self, request: SampleRequest) -> Any:
            asked.append(request)
            raise WorkLostError("not here")

    unused: Any = None
    rehearsed = rehearsal.Rehearsal(recipe, RunFolder(tmp_path), [])
    with pytest.raises(RehearsalError, match="not here"):
        rehearsed.whole_run(Generator(), unused, unused, WeightVersion(0, ""), lambda part: 0.0)
    assert [len(request.seeds) for request in asked] == [2]


def test_only_real_models_are_rehearsed_unless_the_recipe_says_otherwise(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = small_recipe("moving_shapes_sft", tiny_checkpoints, tmp_path / "run")
    recipe.num_steps = 1
    fingerprint = recipe_fingerprint(recipe)
    recipe.rehearsal = "auto"
    assert recipe_fingerprint(recipe) == fingerprint, "a run that goes on may change it"
    assert not finish(recipe).rehearsal.exists()
    monkeypatch.setattr(rehearsal, "REAL_MODEL", 1000)
    recipe.num_steps = 2
    assert finish(recipe).rehearsal.exists()


def out_of_memory(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 8")


def full(*_: Any, **__: Any) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "method", "raised", "said"),
    [
        (
            PipelinePolicy,
            "sample_partly",
            out_of_memory,
            r"the generator ran out of memory after .*20\.00 GiB.*sampling\.batch_size=0, "
            r".*num_frames=9, .*lower these",
        ),
        (MovingShapesReward, "score", out_of_memory, r"the rewards ran out of memory"),
        (
            PipelinePolicy,
            "predict",
            out_of_memory,
            r"the learner ran out of memory .*learner\.micro_batch_size=64, "
            r"policy\.gradient_checkpointing=auto",
        ),
    ],
)
def test_a_part_that_does_not_fit_is_named_with_what_to_change(
    owner: Any,
    method: str,
    raised: Callable[..., Any],
    said: str,
    recipe: Recipe,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(owner, method, raised)
    with pytest.raises(RehearsalError, match=said) as caught:
        finish(recipe)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    assert caught.value.is_memory
    assert not RunFolder(Path(recipe.run_dir)).metrics.exists(), "no step was taken"


def test_a_place_that_takes_no_checkpoint_is_found_out_before_the_first_step(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videorl.run.checkpoints.save_file", full)
    with pytest.raises(RehearsalError, match=r"the checkpoint failed .*No space left") as caught:
        finish(recipe)
    assert "checkpoint.location=" in str(caught.value)
    checkpoints = Path(recipe.run_dir, "checkpoints")
    assert not list(checkpoints.glob("*")), "nothing half-written stays"
    monkeypatch.undo()
    folder = finish(recipe)
    assert len(numbers(folder)) == recipe.num_steps, "the same command goes on"


def test_videos_that_are_not_finite_end_the_rehearsal(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = PipelinePolicy.sample_partly

    def spoiled(self: PipelinePolicy, *given: Any) -> Any:
        latents, times = real(self, *given)
        return latents * torch.nan, times

    monkeypatch.setattr(PipelinePolicy, "sample_partly", spoiled)
    with pytest.raises(RehearsalError, match=r"generator failed .*3 x latents_not_finite"):
        finish(recipe)

"""Offline DPO on the archive of a short online run, stopped and resumed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from tests.small_runs import small_recipe
from tests.unit.data.test_preferences import row, save
from videorl.config import Recipe
from videorl.data.archive_tables import pack_latents
from videorl.data.preferences import Preferences, read_preferences
from videorl.errors import ArchiveError
from videorl.learning.stored_pairs import PairStream, check_origin
from videorl.loop import train
from videorl.one_process import local_parts, train_alone
from videorl.run.folder import RunFolder, open_run
from videorl.run.sinks import JsonlSink, read_metrics


@pytest.fixture(scope="module")
def archive(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of two online steps, with latents."""
    recipe = small_recipe("moving_shapes", tiny_checkpoints, tmp_path_factory.mktemp("on") / "run")
    recipe.archive.latents, recipe.archive.videos = True, "none"
    with open_run(recipe) as folder:
        parts, progress, _ = local_parts(recipe, folder, JsonlSink(folder.metrics))
        train(recipe, parts, progress, lambda: False)
    return folder.archive


@pytest.fixture
def recipe(archive: Path, tiny_checkpoints: dict[str, Path], tmp_path: Path) -> Recipe:
    made = small_recipe("moving_shapes_dpo", tiny_checkpoints, tmp_path / "run")
    made.offline.archive = str(archive)
    made.num_steps, made.reference.interval = 4, 2
    return made


def work(recipe: Recipe, steps: int) -> tuple[bool, RunFolder]:
    """Go on with a run for so many steps."""
    asked = iter(range(steps + 1))
    with open_run(recipe) as folder:
        return train_alone(recipe, folder, lambda: next(asked) >= steps), folder


def test_a_run_learns_and_goes_on_where_it_was_stopped(recipe: Recipe, tmp_path: Path) -> None:
    is_finished, folder = work(recipe, 9)
    assert is_finished
    rows = read_metrics(folder.metrics)
    assert rows[0]["learn/loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[2]["learn/loss"] == pytest.approx(math.log(2), abs=1e-6), "right after a swap"
    assert rows[1]["learn/loss"] != pytest.approx(math.log(2), abs=1e-6)
    assert [row["reference/version_step"] for row in rows] == [0, 2, 2, 4]
    assert any(folder.export.iterdir())
    recipe.run_dir = str(tmp_path / "stopped")
    assert not work(recipe, 3)[0]
    is_finished, again = work(recipe, 9)
    assert is_finished
    repeated = read_metrics(again.metrics)
    for name in ("learn/loss", "learn/margin", "optimizer/grad_norm"):
        assert [row[name] for row in repeated] == pytest.approx([row[name] for row in rows])


def test_the_archive_of_another_run_is_refused_before_a_model_loads(recipe: Recipe) -> None:
    frames = recipe.sampling.num_frames
    recipe.policy.family, recipe.sampling.num_frames = "cogvideox", 5
    recipe.policy.path = "/there/is/no/model"
    with pytest.raises(
        ArchiveError,
        match=rf"a run with policy\.family=wan, sampling\.num_frames={frames}, but this recipe has "
        r"policy\.family=cogvideox, sampling\.num_frames=5: latents of another model",
    ):
        work(recipe, 1)


def test_latents_of_another_copy_of_the_model_are_warned_of(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    check_origin(recipe)
    assert not caplog.messages
    made, recipe.policy.path = recipe.policy.path, str(tmp_path / "other")
    check_origin(recipe)
    (warning,) = caplog.messages
    assert f"policy.path={made}, this recipe has {recipe.policy.path}" in warning


def test_an_archive_that_others_made_with_another_model(recipe: Recipe, tmp_path: Path) -> None:
    recipe.offline.archive = str(save(tmp_path / "others.parquet", row(1), row(2)))
    with pytest.raises(ArchiveError, match=r"shape \[2, 3, 2, 2\].*of another model or size"):
        work(recipe, 1)


def test_every_epoch_visits_every_pair_once_in_its_own_order() -> None:
    number = 7
    blank = torch.zeros(1)
    packed = pack_latents(blank)
    pairs = Preferences([f"{one}" for one in range(number)], (1,), lambda index: (packed, packed))
    found = [
        [stream_of(pairs, blank)[position].prompt.text for position in epoch]
        for epoch in (range(number), range(number, 2 * number), range(number))
    ]
    assert sorted(found[0]) == sorted(found[1]) == list(pairs.prompts)
    assert found[0] != found[1]
    assert found[0] == found[2]


def stream_of(pairs: Preferences, blank: torch.Tensor) -> PairStream:
    return PairStream(pairs, lambda text: blank, seed=3)


def test_a_pair_that_is_not_finite_is_left_out_and_counted(
    recipe: Recipe, archive: Path, tmp_path: Path
) -> None:
    """The run goes on, and another pair takes its place."""
    found = read_preferences(archive)
    chosen, rejected = found.latents(0)
    shape = list(chosen.shape)
    good = {
        "prompt": "a red circle",
        "chosen_latents_shape": shape,
        "rejected_latents_shape": shape,
    }
    good |= {f"chosen_{name}": value for name, value in pack_latents(chosen).items()}
    good |= {f"rejected_{name}": value for name, value in pack_latents(rejected).items()}
    bad = {**good, "rejected_latents": pack_latents(rejected * torch.nan)["latents"]}
    recipe.offline.archive = str(save(tmp_path / "pairs.parquet", good, bad))
    recipe.prompts.per_round, recipe.num_steps = 2, 2
    is_finished, folder = work(recipe, 9)
    assert is_finished
    rows = read_metrics(folder.metrics)
    assert [row["learn/examples"] for row in rows] == [2, 2]
    assert sum(row.get("examples/skipped", 0) for row in rows) >= 1
    assert [row["optimizer/skipped"] for row in rows] == [0, 0]

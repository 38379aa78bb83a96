"""`policy.dtype: auto` means the same type to every process of a run, and of its resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.tiny import tiny_policy, tiny_sampling
from videorl.config import Recipe
from videorl.errors import RunFolderError
from videorl.policies import load_policy
from videorl.policies.devices import Devices, compute_type
from videorl.recipes.reading import load_recipe
from videorl.run.compute_type import FILE, as_in_run_of, noted_type, with_compute_type
from videorl.run.folder import open_run
from videorl.weights import digest

GPUS, CPUS = Devices(on_gpu=True), Devices(on_gpu=False)


def recipe(*overrides: str) -> Recipe:
    return load_recipe("moving_shapes", overrides)


def never() -> Devices:
    raise AssertionError("the devices of now do not matter")


def test_gpus_compute_in_bfloat16_where_they_have_it() -> None:
    assert compute_type(GPUS) == "bfloat16"
    assert compute_type(Devices(on_gpu=True, has_bfloat16=False)) == "float32"
    assert compute_type(CPUS) == "float32"


def test_cards_without_bfloat16_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = with_compute_type(recipe(), tmp_path, lambda: Devices(True, has_bfloat16=False))
    assert made.policy.dtype == "float32"
    assert "the GPUs here lack bfloat16" in caplog.text


def test_a_run_keeps_its_type_wherever_it_goes_on(tmp_path: Path) -> None:
    given = recipe(f"run_dir={tmp_path}")
    with open_run(given):
        made = with_compute_type(given, tmp_path, lambda: GPUS)
    assert (given.policy.dtype, made.policy.dtype) == ("auto", "bfloat16")
    assert json.loads((tmp_path / FILE).read_text()) == {"policy.dtype": "bfloat16"}
    with open_run(given):  # what the folder has on record is the recipe as it was given
        assert with_compute_type(given, tmp_path, lambda: CPUS) == made
    assert load_recipe(str(tmp_path / "config.yaml")).policy.dtype == "auto"
    assert as_in_run_of(given, ["moving_shapes", tmp_path / "config.yaml"]) == made


def test_a_stated_type_is_kept_and_nothing_is_noted(tmp_path: Path) -> None:
    given = recipe("policy.dtype=float32")
    assert with_compute_type(given, tmp_path, never) is given
    assert as_in_run_of(given, [tmp_path]) is given
    assert not (tmp_path / FILE).exists()


def test_an_evaluation_notes_nothing(tmp_path: Path) -> None:
    made = with_compute_type(recipe(), tmp_path, lambda: GPUS, note=False)
    assert made.policy.dtype == "bfloat16"
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(("half", "expected"), [(True, "bfloat16"), (False, "float32")])
def test_an_older_run_has_the_type_of_its_checkpoints(
    tmp_path: Path, expected: str, *, half: bool
) -> None:
    folder = tmp_path / "checkpoints/step-000010"
    folder.mkdir(parents=True)
    dtype = torch.bfloat16 if half else torch.float32
    weights = {"blocks": torch.zeros(2, dtype=dtype), "time": torch.zeros(2)}
    save_file(weights, folder / "published-10.safetensors")
    torn = tmp_path / "checkpoints/step-000020.partial"
    torn.mkdir()
    (torn / "published-20.safetensors").write_bytes(b"")
    assert with_compute_type(recipe(), tmp_path, never).policy.dtype == expected
    assert noted_type(tmp_path) == expected


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"policy.dtype": "auto"}'])
def test_a_damaged_note_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(RunFolderError, match=r"compute\.json is damaged"):
        with_compute_type(recipe(), tmp_path, never)


@pytest.mark.parametrize("rank", [4, 0], ids=["lora", "full"])
def test_a_task_without_a_gpu_publishes_the_weights_of_a_learner_with_one(
    tiny_checkpoints: dict[str, Path], tmp_path: Path, rank: int
) -> None:
    given = recipe()
    given.policy = tiny_policy(tiny_checkpoints["wan"], rank=rank)
    made = with_compute_type(given, tmp_path, lambda: GPUS)
    parts = frozenset({"transformer"})
    learner, publisher, by_itself = (
        load_policy(config, tiny_sampling(), parts=parts, device=device, trainable=trains)
        for config, device, trains in (
            (made.policy, None, True),
            (made.policy, torch.device("cpu"), False),
            (given.policy, torch.device("cpu"), False),
        )
    )
    assert digest(publisher.weights()) == digest(learner.weights())
    assert digest(by_itself.weights()) != digest(learner.weights())

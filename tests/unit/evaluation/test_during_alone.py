"""Evaluations of a learner that has no generators of its own: ReFL, and offline DPO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.small_runs import small_recipe
from tests.unit.evaluation.test_during import SETTINGS, Killed, go, rows
from videorl import one_process
from videorl.config import Recipe
from videorl.errors import GuardError, PoolLostError
from videorl.evaluation.readings import read_readings
from videorl.futures import completed
from videorl.run.checkpoints import CheckpointFolder
from videorl.run.folder import RunFolder
from videorl.run.guard_notes import read_notes
from videorl.run.sinks import FanOut
from videorl.sampling.local import LocalGenerator
from videorl.weights import digest

STEPS = 5
ALONE = {**SETTINGS, "num_steps": STEPS, "evaluation.interval": 2, "checkpoint.interval": 3}


@pytest.fixture(scope="module")
def archive(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the pairs that an online run of the same model stored."""
    root = tmp_path_factory.mktemp("online") / "run"
    stored = {"num_steps": 2, "archive.latents": True}
    return go(small_recipe("moving_shapes", tiny_checkpoints, root, stored)).archive


@pytest.fixture(params=["refl", "offline"])
def made(
    request: pytest.FixtureRequest,
    archive: Path,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
) -> Recipe:
    is_offline = request.param == "offline"
    name = "moving_shapes" if is_offline else "moving_shapes_refl"
    settings: dict[str, Any] = {**ALONE, "optimizer.learning_rate": 1e-2}
    settings |= {"offline.archive": archive} if is_offline else {}
    return small_recipe(name, tiny_checkpoints, tmp_path / "run", settings)


def test_it_is_evaluated_goes_on_after_a_kill_and_learns_the_same(
    made: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = FanOut.write

    def kill(sinks: FanOut, step: int, metrics: dict[str, float]) -> None:
        write(sinks, step, metrics)
        if step == 3:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(FanOut, "write", kill)
        go(made)
    folder = go(made)
    found = read_readings(folder.root)
    assert [reading.step for reading in found] == [0, 2], "step 4 is the last, and logs no more"
    told = {row["step"]: row["evaluation/step"] for row in rows(folder) if "evaluation/step" in row}
    assert told == {1: 0, 3: 2}
    drift = [row["step"] for row in rows(folder) if row.get("drift/predictions", 0) > 0]
    assert drift == [1, 3], "with the weights of steps 2 and 4"
    made.run_dir, made.evaluation.interval = str(tmp_path / "without"), 0
    with monkeypatch.context() as patch:
        patch.setattr(one_process, "open_during", None)
        without = go(made)
    assert not (without.root / "evaluation/during").exists()
    beside = ("evaluation/", "drift/")
    plain = [{k: v for k, v in row.items() if not k.startswith(beside)} for row in rows(folder)]
    assert plain == rows(without)
    files = [each.export / "pytorch_lora_weights.safetensors" for each in (folder, without)]
    assert digest(load_file(files[0])) == digest(load_file(files[1]))


def test_it_is_watched(made: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its guard stops it; told to go back, it goes back once, and then stops."""
    made.guard.patience, made.guard.max_rollbacks = 1, 1
    made.guard.action, made.evaluation.during_prompts = "rollback", 6
    made.num_steps = 7
    seen = list[int]()
    sample = LocalGenerator.submit

    def darken(self: LocalGenerator, request: Any) -> Any:
        """What the weights of step 4 and later sample is black."""
        seen.append(request.version.step)
        future = sample(self, request)
        for candidate in future.result().candidates if request.version.step >= 4 else ():
            candidate.video.frames[:] = 0
        return future

    monkeypatch.setattr(LocalGenerator, "submit", darken)
    with pytest.raises(GuardError, match=r"stopped .* at step 4"):
        go(made)
    folder = RunFolder(Path(made.run_dir))
    notes = read_notes(folder.root)
    assert [row["to"] for row in notes["rollbacks"]] == [2]
    assert {row["action"] for row in notes["alarms"]} == {"rollback", "stop"}
    assert [row["step"] for row in rows(folder)] == [0, 1, 2, 3, 4]
    assert seen.count(4) == 12, "the weights of step 4 were made twice"
    assert "sent the run back" in (folder.root / "report.html").read_text()


def test_it_does_not_go_on_unwatched(made: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that is lost for good ends the run, with all that it learned, if the guard could."""
    sample = LocalGenerator.submit

    def fail() -> Any:
        raise PoolLostError("pool generator: 3 workers in a row could not start")

    def lost(self: LocalGenerator, request: Any) -> Any:
        is_lost = request.is_behind and request.version.step >= 2
        return completed(fail) if is_lost else sample(self, request)

    monkeypatch.setattr(LocalGenerator, "submit", lost)
    with pytest.raises(PoolLostError, match=r"guard\.action=stop.* blind.* in a row.*action=warn"):
        go(made)
    folder = RunFolder(Path(made.run_dir))
    assert [row["step"] for row in rows(folder)] == [0, 1, 2]
    assert max(CheckpointFolder(folder.root / "checkpoints", 1).steps()) == 3
    made.guard.action = "warn"
    go(made)
    assert [row["step"] for row in rows(folder)] == [*range(STEPS)]
    assert [reading.step for reading in read_readings(folder.root)] == [0]

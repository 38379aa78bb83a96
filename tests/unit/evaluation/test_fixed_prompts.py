"""The film strip of a run in one process; on Ray: `tests/ray/test_interrupted_driver.py`."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from safetensors.torch import load_file

from tests.small_runs import small_recipe
from tests.unit.trackers.test_tensorboard import later_tracker, plugin_reader
from tests.unit.trackers.test_wandb import recorded, records
from videorl import one_process
from videorl.config import Recipe
from videorl.data.archive import read_table
from videorl.errors import ConfigError, MediaLostError, RunFolderError, WorkLostError
from videorl.evaluation.fixed_prompts import FixedPrompts
from videorl.evaluation.strip_files import FixedPrompt, read_videos, step_folder
from videorl.recipes.reading import load_recipe
from videorl.run.folder import RunFolder, open_run
from videorl.run.run_id import read_run_id
from videorl.run.sinks import FanOut, read_metrics
from videorl.trackers.tensorboard import TensorBoardTracker
from videorl.trackers.tracker import FixedVideo
from videorl.types import (
    Candidate,
    Media,
    Prompt,
    SampleRequest,
    Score,
    ScoredCandidate,
    ScoredGroup,
    Video,
    WeightVersion,
)
from videorl.watch.fixed_prompts import read_strips

STEPS = 5
SETTINGS = {
    "num_steps": STEPS,
    "optimizer.learning_rate": 1e-1,
    "checkpoint.interval": 3,
    "fixed_prompts.source": "moving_shapes",
    "fixed_prompts.num_prompts": 2,
}


class Killed(BaseException):
    """As if the process had been killed."""


def make(checkpoints: Mapping[str, Path], run_dir: Path, interval: int = 2) -> Recipe:
    settings = {**SETTINGS, "fixed_prompts.interval": interval}
    return small_recipe("moving_shapes", checkpoints, run_dir, settings)


def go(recipe: Recipe) -> RunFolder:
    with open_run(recipe) as folder:
        assert one_process.run(recipe, folder, lambda: False)
    return folder


def learned(folder: RunFolder) -> tuple[list[str], list[dict[str, Any]]]:
    """Return the digests of all versions, and the metrics that are no times."""
    rows = [
        {name: value for name, value in row.items() if not name.startswith("time/")}
        for row in read_metrics(folder.metrics)
    ]
    return read_table(folder.archive, "steps")["published_digest"].to_pylist(), rows


def files(folder: RunFolder) -> dict[str, bytes]:
    root = folder.fixed_prompts
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.*"))}


@pytest.fixture(scope="module")
def whole(tiny_checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with fixed prompts, and another tracker beside TensorBoard."""
    recipe = make(tiny_checkpoints, tmp_path_factory.mktemp("whole") / "run")
    recipe.metrics.trackers = ["wandb"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        return go(recipe)


def test_the_reader_of_the_run_page_shows_what_is_written(whole: RunFolder) -> None:
    strips, num_steps, problems = read_strips(whole.root, 100)
    assert (len(strips), num_steps, problems) == (2, 4, [])
    for place, strip in enumerate(strips):
        assert strip.prompt
        assert [frame.step for frame in strip.frames] == [0, 2, 4, 5], "and at the end"
        for frame in strip.frames:
            assert frame.video == f"fixed_prompts/step-{frame.step:06d}/{place:03d}.mp4"
            assert {"total", "motion_quality"} <= frame.scores.keys()
    assert len({strip.seed for strip in strips}) == 2
    videos = [(whole.root / str(frame.video)).read_bytes() for frame in strips[0].frames]
    assert len(set(videos)) == 4, "the weights have changed"
    scores = json.loads((whole.fixed_prompts / "step-000005/scores.json").read_text())
    assert scores["digest"] == learned(whole)[0][-1]


def test_trackers_get_the_videos(whole: RunFolder) -> None:
    reader = plugin_reader(whole.tensorboard)
    assert [one.step for one in reader.Tensors("fixed_prompts/001")] == [0, 2, 4, 5]
    assert [one.step for one in reader.Tensors("reward/total")] == list(range(STEPS))
    (file,) = recorded(whole.root)
    rows = records(file)
    assert {row.run.run_id for row in rows if row.HasField("run")} == {read_run_id(whole.root)}
    told = [
        {"/".join(item.nested_key): item.value_json for item in row.history.item}
        for row in rows
        if row.HasField("history")
    ]
    assert [row["step"] for row in told if "fixed_prompts/total" in row] == ["0", "2", "4", "5"]
    assert len([row for row in told if "reward/total" in row]) == STEPS
    assert "steps_learned" in str([row for row in rows if row.HasField("summary")])


def test_it_changes_no_number_of_the_run(
    whole: RunFolder, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    without = go(make(tiny_checkpoints, tmp_path / "run", 0))
    assert learned(without) == learned(whole)
    assert not without.fixed_prompts.exists()
    aligned = [
        load_file(folder.export / "pytorch_lora_weights.safetensors") for folder in (whole, without)
    ]
    # By tensor: the order of the header's metadata differs from file to file.
    assert aligned[0].keys() == aligned[1].keys()
    assert all(aligned[0][name].equal(aligned[1][name]) for name in aligned[0])


def test_a_killed_run_goes_on_from_its_checkpoint_and_does_nothing_twice(
    whole: RunFolder,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checkpoint is of step 3, the kill comes after step 4: step 4 is done again, 0 and 2 not.

    What step 4 had is set aside until a checkpoint covers it.
    """
    recipe, write = make(tiny_checkpoints, tmp_path / "run"), FanOut.write

    def kill(sinks: FanOut, step: int, metrics: Mapping[str, float]) -> None:
        write(sinks, step, metrics)
        if step == 3:
            folder = RunFolder(Path(recipe.run_dir))
            while not (folder.fixed_prompts / "step-000004").exists():
                pass
            raise Killed

    monkeypatch.setattr(FanOut, "write", kill)
    with pytest.raises(Killed):
        go(recipe)
    root = Path(recipe.run_dir)
    (root / "fixed_prompts/.partial-step-000004").mkdir()
    written = {path.name: path.stat().st_mtime_ns for path in root.glob("fixed_prompts/step-*")}
    assert written.keys() == {"step-000000", "step-000002", "step-000004"}
    seen = list[list[str]]()

    def look(sinks: FanOut, step: int, metrics: Mapping[str, float]) -> None:
        seen.append([path.name for path in root.glob("superseded/fixed_prompts/step-*")])
        write(sinks, step, metrics)

    monkeypatch.setattr(FanOut, "write", look)
    folder = go(recipe)
    assert seen[0] == ["step-000004"]
    assert not (root / "superseded").exists()
    assert files(folder) == files(whole)
    again = {path.name: path.stat().st_mtime_ns for path in root.glob("fixed_prompts/step-*")}
    assert {name for name in written if again[name] != written[name]} == {"step-000004"}
    assert learned(folder) == learned(whole)
    assert [one.step for one in plugin_reader(folder.tensorboard).Tensors("fixed_prompts/000")] == [
        *(0, 2, 4, 5)
    ]


def test_a_run_that_is_stopped_leaves_no_hole(
    whole: RunFolder,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is stopped in step 3, which waits for the videos of step 2, which are never written."""
    recipe, save = make(tiny_checkpoints, tmp_path / "run"), one_process.save_videos
    is_over, has_failed, asked = threading.Event(), threading.Event(), count()

    def should_stop() -> bool:
        lines = RunFolder(Path(recipe.run_dir)).metrics.read_text().splitlines()
        return len(lines) == 3 and next(asked) > 0  # not before the step, but in it

    def hold(videos: Mapping[Path, Media]) -> None:
        if "step-000002" in str(next(iter(videos))):
            is_over.wait(180)
            has_failed.set()
            raise OSError("killed")
        save(videos)

    monkeypatch.setattr(one_process, "save_videos", hold)
    with open_run(recipe) as folder:
        folder.metrics.touch()
        assert not one_process.run(recipe, folder, should_stop)
        is_over.set()
        assert has_failed.wait(180)
        while list(folder.fixed_prompts.glob(".partial*")):
            pass
    assert [path.name for path in folder.fixed_prompts.glob("step-*")] == ["step-000000"]
    assert len(read_metrics(folder.metrics)) == 3, "its weights are not the newest any more"
    monkeypatch.setattr(one_process, "save_videos", save)
    assert files(go(recipe)) == files(whole)
    assert learned(folder) == learned(whole)


def test_what_is_lost_is_counted_and_costs_the_run_nothing(
    whole: RunFolder,
    tiny_checkpoints: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save = one_process.save_videos

    def fail(videos: Mapping[Path, Media]) -> None:
        (path,) = videos
        if "step-000002" in str(path):
            raise OSError(28, "No space left on device")
        if path.name == "001.mp4":
            raise MediaLostError("the node is gone")
        save(videos)

    monkeypatch.setattr(one_process, "save_videos", fail)
    with caplog.at_level(logging.WARNING):
        folder = go(make(tiny_checkpoints, tmp_path / "run"))
    assert learned(folder)[0] == learned(whole)[0]
    names = sorted(path.name for path in folder.fixed_prompts.glob("step-*"))
    assert names == ["step-000000", "step-000004", "step-000005"]
    strips, _, problems = read_strips(folder.root, 100)
    assert problems == []
    assert all(frame.video for frame in strips[0].frames)
    assert not any(frame.video for frame in strips[1].frames)
    # The first of step 0, both of step 2; the one of step 4 may come after the last metrics.
    assert read_metrics(folder.metrics)[-1]["fixed_prompts/lost"] in (3, 4)
    assert "fixed prompts: step 2 is left out: OSError: [Errno 28] No space left" in caplog.text
    assert not list(folder.fixed_prompts.glob(".partial*"))


class Half:
    """Samples and scores nothing for the second of two prompts, until it is told to lose it."""

    def __init__(self, scored: ScoredGroup) -> None:
        self.asked = list[Future[Any]]()
        self._scored = scored

    def submit(self, request: Any) -> Future[Any]:
        future: Future[Any] = Future()
        if isinstance(request, SampleRequest) and self.asked:
            self.asked.append(future)
        elif isinstance(request, SampleRequest):
            self.asked.append(future)
            future.set_result("a group")
        else:
            future.set_result(self._scored)
        return future


def test_a_step_that_ends_with_the_pools_is_not_taken_for_whole(tmp_path: Path) -> None:
    version = WeightVersion(4, "digest")
    video = Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0)
    candidate = Candidate(0, Prompt(0, "a"), 0, 1, version, None, video)
    scored = ScoredCandidate(candidate, Score({"motion": 1.0}, 1.0))
    half = Half(ScoredGroup(Prompt(0, "a"), None, (scored,), {}))
    prompts = [FixedPrompt(Prompt(index, text), index) for index, text in enumerate("ab")]
    workers: Any = half
    fixed = FixedPrompts(tmp_path, prompts, 2, workers, workers, one_process.save_videos)
    fixed.begin(version)
    assert not fixed.settle(5, lambda: True)
    fixed.close()
    half.asked[1].set_exception(WorkLostError("pool generator was closed"))
    fixed.behind.wait_for_thread()
    assert list((tmp_path / "fixed_prompts").iterdir()) == []


def test_trackers_that_forget_a_resumed_step_are_told_its_videos_again(tmp_path: Path) -> None:
    """TensorBoard hides what it has of step 4 and later, but the videos of 4 are not made again."""
    prompts = [FixedPrompt(Prompt(index, text), index) for index, text in enumerate("ab")]
    for step in (2, 4):
        folder = step_folder(tmp_path, step)
        folder.mkdir(parents=True)
        video = Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0)
        one_process.save_videos({folder / "000.mp4": video})
        (folder / "scores.json").write_text('{"scores": [{"total": 0.5}, {}]}')
    directory = tmp_path / "tensorboard"
    first = TensorBoardTracker(directory)
    for step in (2, 4):
        first.videos(step, read_videos(tmp_path, step, prompts))
    first.close()
    resumed, workers = later_tracker(directory), cast("Any", None)
    resumed.truncate(4)
    fixed = FixedPrompts(
        tmp_path, prompts, 2, workers, workers, one_process.save_videos, resumed.videos, resumed=4
    )
    for step in (2, 4):
        fixed.begin(WeightVersion(step, "digest"))
    fixed.finish(WeightVersion(4, "digest"), lambda: False)
    resumed.close()
    reader = plugin_reader(directory)
    for tag in ("fixed_prompts/000", "fixed_prompts/total"):
        assert [one.step for one in reader.Tensors(tag)] == [2, 4]
    assert read_videos(tmp_path, 4, prompts)[1] == FixedVideo("b", 1, None, {})
    assert read_videos(tmp_path, 6, prompts) == []


def test_other_prompts_than_those_of_the_videos_are_refused(
    whole: RunFolder, tiny_checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    recipe = make(tiny_checkpoints, tmp_path / "run")
    strip = tmp_path / "run/fixed_prompts"
    (strip / "step-000000").mkdir(parents=True)
    (strip / "prompts.json").write_text('[{"prompt": "another", "seed": 1}]')
    with pytest.raises(RunFolderError, match=f"move {strip} away, or set fixed_prompts.interval=0"):
        go(recipe)


@pytest.mark.parametrize(
    ("recipe", "settings", "said"),
    [
        ("moving_shapes", ["fixed_prompts.interval=-1"], "fixed_prompts.interval must be >= 0"),
        ("moving_shapes_refl", ["fixed_prompts.interval=5"], "no generators sample while the run"),
        (
            "moving_shapes",
            ["fixed_prompts.interval=5", "evaluation.source="],
            "fixed_prompts.source must be set, as evaluation.source",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(recipe: str, settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_recipe(recipe, settings)

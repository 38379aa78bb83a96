"""`videorl.train`, `videorl.score` and `videorl.sample`, in this process."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import videorl
from tests.small_runs import SETTINGS
from videorl import rewards
from videorl.api import overrides_of
from videorl.data.video_io import write_mp4
from videorl.errors import ConfigError, PromptError, VideoError
from videorl.recipes.reading import load_recipe
from videorl.run.sinks import read_metrics
from videorl.types import Video


@pytest.fixture
def small(tiny_checkpoints: dict[str, Path]) -> dict[str, Any]:
    """Return settings that make the default recipe tiny."""
    nested: dict[str, dict[str, object]] = {}
    for key, value in SETTINGS.items():
        if key.startswith(("policy.", "sampling.", "prompts.")):
            section, _, name = key.partition(".")
            nested.setdefault(section, {})[name] = value
    nested["policy"] = {"path": tiny_checkpoints["wan"], "lora": {"rank": 4}}
    return dict(nested)


def test_a_run_ends_with_its_summary_and_is_not_repeated(
    small: dict[str, Any], tmp_path: Path
) -> None:
    settings = {
        **small,
        "run_dir": tmp_path / "run",
        "num_steps": 2,
        "objective": {"name": "sft", "sft_on": "all"},
        "evaluation": {"num_prompts": 2, "best_of": 2, "samples": 1, "num_videos": 1},
    }
    summary = videorl.train("moving_shapes", **settings)
    assert summary["is_finished"]
    assert summary["num_steps"] == 2
    assert summary["evaluation"]["num_prompts"] == 2
    folder = Path(summary["run_dir"])
    assert folder == tmp_path / "run"
    rows = read_metrics(folder / "metrics.jsonl")
    assert [row["learn/examples"] for row in rows] == [6.0, 6.0]
    for name in ("report.html", "aligned", "evaluation/before", "evaluation/after"):
        assert (folder / name).exists(), name
    assert videorl.train("moving_shapes", **settings) == summary


def test_wrong_settings_are_errors_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key objective\.bet "):
        videorl.train("moving_shapes", objective={"bet": 1})
    with pytest.raises(ConfigError, match="runner must be one of process"):
        videorl.train("moving_shapes", runner="slurm", run_dir=tmp_path / "run")


def test_prompts_are_read_before_anything_starts(small: dict[str, Any], tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.csv"
    held_out.write_text("caption\na small red circle moving left\n")
    settings = {**small, "run_dir": tmp_path / "run", "evaluation": {"source": held_out}}
    with pytest.raises(PromptError, match="no column 'prompt', but caption"):
        videorl.train("moving_shapes", **settings)
    assert not (tmp_path / "run/archive").exists()


def test_scores_are_those_of_the_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    video = Video(rng.integers(0, 255, (9, 32, 32, 3)).astype(np.uint8), 8.0)
    prompt = "a large red circle moving left"
    (found,) = videorl.score([video], [prompt])
    (expected,) = rewards.load("moving_shapes").score([video], [prompt])
    assert found.dimensions == expected.dimensions
    assert found.total == pytest.approx(expected.total)
    (doubled,) = videorl.score([video], [prompt], "moving_shapes", weight=2)
    assert doubled.total == pytest.approx(2 * expected.total)
    write_mp4(tmp_path / "clip.mp4", video)
    (of_file,) = videorl.score([tmp_path / "clip.mp4"], [prompt])
    assert of_file.dimensions.keys() == expected.dimensions.keys()
    with pytest.raises(VideoError, match=r"absent\.mp4"):
        videorl.score([tmp_path / "absent.mp4"], [prompt])


def test_samples_are_seeded_videos(small: dict[str, Any]) -> None:
    ((first, second),) = videorl.sample("a red circle", num=2, seed=3, **small)
    ((again,),) = videorl.sample(["a red circle"], num=1, seed=3, **small)
    assert first.frames.shape == (9, 32, 32, 3)
    difference = np.abs(first.frames.astype(int) - again.frames).max()
    assert difference <= 2, "the same, but for the rounding of another batch"
    assert np.abs(first.frames.astype(int) - second.frames).max() > 20


def test_settings_from_python_are_taken_as_they_are() -> None:
    made = load_recipe(
        "moving_shapes",
        overrides_of(
            {
                "name": "001 #2",
                "sampling": {"negative_prompt": "no: 'quotes' = \"here\" #"},
                "objective": {"beta": 100},
                "run_dir": Path("runs/a #b"),
                "learner": {"resources": {"a.b": 1.0}},
                "rewards": [{"name": "moving_shapes", "options": {}}],
                "optimizer": {"betas": (0.8, 0.9)},
            }
        ),
    )
    shipped = load_recipe("moving_shapes")
    assert (made.name, made.run_dir) == ("001 #2", "runs/a #b")
    assert made.sampling.negative_prompt == "no: 'quotes' = \"here\" #"
    assert made.objective == dataclasses.replace(shipped.objective, beta=100)
    assert made.learner.resources == {"a.b": 1.0}
    assert (made.optimizer.betas, len(made.rewards)) == ([0.8, 0.9], 1)

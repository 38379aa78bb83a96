"""What a comparison and its baseline must share, and what does not matter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.video_files import moving_pattern
from videorl.config import RewardConfig
from videorl.data.clips import Clip
from videorl.data.score_reading import read_scores
from videorl.data.score_table import open_scores
from videorl.data.video_io import write_mp4
from videorl.measures.folders import open_folders
from videorl.measures.made_with import (
    MEASURES,
    VIDEOS,
    differences,
    of_folders,
    of_measures,
    of_policies,
)
from videorl.measures.measuring import VIDEO_MAE, Measured, MovedLight, measure_clips
from videorl.measures.policies import named_policies
from videorl.measures.store import open_store
from videorl.measures.suites import Suite
from videorl.recipes.reading import load_recipe
from videorl.types import Prompt, Score, Video


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs of the videos of a folder."""
    made = [{VIDEOS: {"a": facts}, MEASURES: {}} for facts in (then, now)]
    return differences(*made, is_whole=True)


def test_neither_order_of_prompts_nor_places_of_pictures_matter(tmp_path: Path) -> None:
    pictures = [tmp_path / name for name in ("one.png", "moved.png", "other.png")]
    for picture, colour in zip(pictures, ("red", "red", "blue"), strict=True):
        Image.new("RGB", (8, 8), colour).save(picture)

    def made(*prompts: tuple[str, Path]) -> dict[str, Any]:
        rows = enumerate(prompts)
        suite = Suite("x", tuple(Prompt(n, text, image=str(at)) for n, (text, at) in rows), 1)
        return of_policies(named_policies(["a"], load_recipe("moving_shapes")), suite)["a"]

    one, moved, other = pictures
    then = made(("a ball", one), ("a cube", one))
    assert differing(then, made(("a cube", moved), ("a ball", moved))) == []
    (said,) = differing(then, made(("a ball", other), ("a cube", one)))
    assert said.startswith("a: prompts was ")


def test_a_setting_that_came_with_a_later_version_is_what_it_was_before() -> None:
    then = {"clips": "2", "seed": 0}
    assert differing(then, {**then, "sampling.true_guidance_scale": 1.0, "shape": "large"}) == []
    assert differing(then, {**then, "sampling.guidance_scale": 11.5}) == [
        "a: sampling.guidance_scale was not known, is 11.5"
    ]
    assert differing(then, {**then, "samples": 1}) == ["a: samples was not known, is 1"]


def test_clips_of_another_size_are_told(tmp_path: Path) -> None:
    """Also where `--resample` cuts them to another one because of a folder that came later."""
    (out := tmp_path / "out").mkdir()
    for name, size in (("a", 32), ("b", 32), ("small", 16)):
        (tmp_path / name).mkdir()
        write_mp4(tmp_path / name / "0.mp4", Video(moving_pattern(4, size, size), 8.0))

    def made(*names: str, resample: bool = False) -> dict[str, Any]:
        folders = open_folders([str(tmp_path / name) for name in names])
        measures = {folder.label: [MovedLight()] for folder in folders}
        with open_store(out) as store:
            measured = measure_clips(folders, measures, store, lambda _: None, resample=resample)
        return of_folders(folders, measured)["a"]

    then = made("a", "b")
    assert differing(then, made("a", "b", resample=True)) == [], "which cuts nothing"
    (said,) = differing(then, made("a", "small", resample=True))
    assert "shape was 4 frames of 32×32 at 8 fps, is 4 frames of 16×16 at 8 fps, cut" in said


def test_real_clips_are_known_by_what_they_show() -> None:
    """The same network gives features that differ in the last bits on another device."""

    def made(noise: float, shown: str = "sha") -> dict[str, str]:
        reference = Measured(digests={("0.mp4", ""): shown})
        reference.values[VIDEO_MAE][("0.mp4", "")] = np.array([1.0 + noise])
        return of_measures((), reference=reference)

    assert made(0.0) == made(1e-7)
    assert made(0.0) != made(0.0, "other")


@pytest.mark.parametrize(
    ("changes", "is_same"),
    [
        ({"path": "copy", "options": {"device": "cpu", "batch_frames": 4}}, True),
        ({"path": "other"}, False),
        ({"options": {"dtype": "float32"}}, False),
        ({"weight": 0.5}, False),
    ],
)
def test_what_decides_scores(tmp_path: Path, changes: dict[str, Any], is_same: bool) -> None:
    for name in ("model", "copy", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("2" if name == "other" else "1")

    def made(path: str = "model", **settings: Any) -> str:
        reward = RewardConfig(name="video_score", path=str(tmp_path / path), **settings)
        file = tmp_path / f"{len([*tmp_path.iterdir()])}.parquet"
        with open_scores(file, [reward]) as table:
            table.add([Clip("a.mp4", "a ball", "")], {reward.key: [Score({"quality": 1.0}, 1.0)]})
            table.merge()
        return read_scores(file).made_with

    assert (made() == made(**changes)) is is_same


def test_values_come_back_from_json_as_they_were() -> None:
    recipe = load_recipe("moving_shapes")
    suite = Suite("x", (Prompt(0, "a ball"),), 1)
    made = of_policies(named_policies(["a"], recipe), suite)["a"]
    assert differing(json.loads(json.dumps(made)), made) == []

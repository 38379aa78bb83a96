"""Policies of a comparison on pools of a real Ray: the same videos as in one process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.measures.pools import on_pools
from actors.scoring import score_on_cluster
from videorl.config import RewardConfig
from videorl.data.score_reading import read_scores
from videorl.data.video_io import read_video
from videorl.measures import engines
from videorl.measures.folders import open_folders
from videorl.measures.policies import named_policies
from videorl.measures.rewards import BATCH, score_folders
from videorl.measures.suites import read_suite
from videorl.recipes.reading import load_recipe

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]


def test_policies_on_pools(tmp_path: Path) -> None:
    settings = ["sampling.num_inference_steps=1", "generators.min_workers=1"]
    recipe = load_recipe("moving_shapes", [*settings, "generators.max_workers=1"])
    policies = named_policies(["base"], recipe)
    suite = read_suite("moving_shapes", 3, most=2)
    found = {
        name: engines.sample_policies(policies, suite, tmp_path / name, engine, lambda: False)
        for name, engine in (("pool", on_pools), ("here", engines.here))
    }
    pool, here = (folders["base"] for folders in found.values() if folders)
    names = sorted(path.name for path in pool.glob("*.mp4"))
    assert names == sorted(path.name for path in here.glob("*.mp4")) and len(names) == 6
    for name in names:
        a, b = (read_video(folder / name).frames.astype(int) for folder in (pool, here))
        assert np.abs(a - b).max() <= 2  # other numbers of threads add up in another order

    folders = open_folders([f"base={pool}"])
    scores = score_folders(
        folders,
        [RewardConfig(name="moving_shapes")],
        tmp_path,
        lambda source, reward, table: score_on_cluster(
            source, [reward], table, BATCH, lambda: False
        ),
        lambda: False,
    )
    assert scores is not None
    assert len(read_scores(scores["base", "moving_shapes"]).scores) == 6

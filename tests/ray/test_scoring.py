"""`videorl score` on a real Ray: workers that die, bad files, kills, and what comes out."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from actors.pool.state import Limits
from actors.reward import RayScorer
from actors.scoring import score_clips
from tests.fakes import FakeReward
from tests.ray.conftest import ROOT
from videorl.config import RewardConfig
from videorl.data.clips import Clip
from videorl.data.video_io import read_video, write_mp4
from videorl.rewards.moving_shapes import MovingShapesReward
from videorl.rewards.scoring import Result
from videorl.types import Score
from videorl.worlds.grammar import parse, prompts
from videorl.worlds.moving_shapes import training_clip

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("cluster")]

TEXTS = prompts("held_out")[:6]
OWN = "from videorl.rewards.moving_shapes import MovingShapesReward as Mine\n"
LIMITS = Limits(
    min_workers=1, max_workers=1, max_retries=0, request_timeout_s=60.0, idle_release_s=60.0
)


def save_videos(folder: Path, texts: Sequence[str] = TEXTS) -> list[Path]:
    """Write one small clip per prompt, each with its text beside it."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number}.mp4" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        write_mp4(path, training_clip(rng, parse(text)))
        path.with_suffix(".txt").write_text(text)
    return paths


class Fragile(FakeReward):
    """Reads files; one whose prompt is `poison` ends the process, every time."""

    def score(self, videos: Sequence[Any], prompts: Sequence[str]) -> list[Score]:
        """Score, or die."""
        if "poison" in prompts:
            os._exit(1)
        return super().score([read_video(Path(video)) for video in videos], prompts)


def test_what_kills_a_worker_or_cannot_be_read_costs_no_other_video(tmp_path: Path) -> None:
    paths = save_videos(tmp_path / "clips")
    contents: list[str | bytes] = [str(path) for path in paths]
    contents[1], contents[4] = paths[1].read_bytes(), paths[4].read_bytes()[:900]
    texts = ["a", "b", "poison", "d", "e", "f"]
    clips = [Clip(str(n), texts[n], content) for n, content in enumerate(contents)]
    scorer = RayScorer(
        [RewardConfig(name="fragile")], [{"num_cpus": 1.0}], [LIMITS], None, lambda _: Fragile()
    )
    batches = score_clips(clips, scorer, batch_size=3, max_batches=2, should_stop=lambda: False)
    found: dict[str, Result] = {}
    for some, results in batches:
        for n, clip in enumerate(some):
            found[clip.id] = results["fragile"][n]
    scorer.close()
    expected = FakeReward().score([read_video(path) for path in paths[:4]], texts[:4])
    for n in (0, 1, 3):
        assert found[str(n)] == expected[n]
    assert re.match("2: .*given up after 1 attempts", str(found["2"]))
    assert str(found["4"]).startswith("4: cannot be decoded, it is damaged or truncated")
    assert isinstance(found["5"], Score)


def command(folder: Path, out: Path, *more: str) -> list[str]:
    address = ray.get_runtime_context().gcs_address
    options = ["--reward", "my_reward:Mine", "--out", str(out), "--address", address, *more]
    return [sys.executable, "-m", "jobs.score", str(folder), "rewards.0.num_cpus=0.5", *options]


def test_the_command_is_killed_goes_on_and_takes_what_is_new(tmp_path: Path) -> None:
    """With a model that lies in the user's folder, where workers must find it too."""
    (tmp_path / "my_reward.py").write_text(OWN)
    paths = save_videos(tmp_path / "clips")
    paths[2].write_bytes(paths[2].read_bytes()[:900])
    paths[3].with_suffix(".txt").write_text("a dragon")
    out = tmp_path / "scores.parquet"
    parts = tmp_path / "scores.parquet.parts"
    run = command(tmp_path / "clips", out, "--batch-size", "1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "killed.log").open("w") as log:
        killed = subprocess.Popen(run, cwd=tmp_path, env=environment, stdout=log, stderr=log)
    end = time.monotonic() + 120
    while not list(parts.glob("0*.parquet")):
        assert killed.poll() is None and time.monotonic() < end, (
            tmp_path / "killed.log"
        ).read_text()
        time.sleep(0.01)
    killed.kill()
    killed.wait(180)

    again = subprocess.run(
        [*run, "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    said = json.loads(again.stdout)
    assert (said["num_scored"], said["num_videos"], said["num_failed"]) == (4, 6, 2)
    assert "2.mp4" in again.stderr
    rows = pq.read_table(out).to_pylist()
    assert [row["video"] for row in rows] == [f"{n}.mp4" for n in range(6)]
    for n, row in enumerate(rows):
        if n in (2, 3):
            assert row["total"] is None
            continue
        (wanted,) = MovingShapesReward().score([read_video(paths[n])], [TEXTS[n]])
        assert {name: row[name] for name in wanted.dimensions} == wanted.dimensions
        assert row["total"] == wanted.total
    assert rows[2]["error"].startswith("my_reward:Mine: 2.mp4")
    assert "damaged or truncated" in rows[2]["error"]
    assert rows[3]["error"].startswith('my_reward:Mine: expected "a <size>')
    assert not parts.exists()

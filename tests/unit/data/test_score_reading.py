from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videorl.config import RewardConfig
from videorl.data.clips import Clip
from videorl.data.score_reading import read_scores
from videorl.data.score_table import open_scores
from videorl.errors import DatasetError
from videorl.types import Score

CLIPS = [Clip(f"{name}.mp4", " a bear 🐻\n", "") for name in "ab"]


def write(path: Path, *rewards: RewardConfig) -> None:
    result = Score({"quality": 1.0}, 2.0, {"answers": ("yes", "no")})
    with open_scores(path, rewards) as table:
        table.add(CLIPS, {reward.key: [result, "it is damaged"] for reward in rewards})
        table.merge()


def test_scores_and_reasons_come_back(tmp_path: Path) -> None:
    write(tmp_path / "scores.parquet", RewardConfig(name="one", label="mine"))
    scored = read_scores(tmp_path / "scores.parquet")
    assert (scored.model, scored.label) == ("one", "mine")
    assert scored.scores == {
        ("a.mp4", "a bear 🐻"): Score({"quality": 1.0}, 2.0, {"answers": ["yes", "no"]}),
        ("b.mp4", "a bear 🐻"): "mine: it is damaged",
    }


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="cannot read scores from"):
        read_scores(tmp_path / "missing.parquet")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"video": ["a.mp4"]}), foreign)
    with pytest.raises(DatasetError, match="was not written by `videorl score`"):
        read_scores(foreign)
    damaged = pa.table({name: ["x"] for name in ("video", "prompt", "total", "raw", "error")})
    damaged = damaged.set_column(4, "error", pa.nulls(1))
    damaged = damaged.replace_schema_metadata({"videorl.rewards": '[{"name": "one"}]'})
    pq.write_table(damaged, foreign)
    with pytest.raises(DatasetError, match=r"foreign\.parquet, row 1: is no score"):
        read_scores(foreign)
    pq.write_table(damaged.replace_schema_metadata({"videorl.rewards": "["}), foreign)
    with pytest.raises(DatasetError, match="cannot read scores from"):
        read_scores(foreign)
    write(tmp_path / "two.parquet", RewardConfig(name="one"), RewardConfig(name="two"))
    with pytest.raises(DatasetError, match="mixes one, two; score each model into a file"):
        read_scores(tmp_path / "two.parquet")

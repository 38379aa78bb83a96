"""Scores survive kills, come out in order and never mix models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videorl.config import RewardConfig
from videorl.data import score_table
from videorl.data.clips import Clip
from videorl.data.score_reading import read_scores
from videorl.data.score_table import dimension_names, open_scores
from videorl.errors import ConfigError, RunFolderError
from videorl.rewards.scoring import Result
from videorl.types import Score

ONE = [RewardConfig(name="one", options={"device": "cpu"})]
TWO = [RewardConfig(name="one", weight=2.0), RewardConfig(name="two")]
CLIPS = [Clip(f"{name}.mp4", "a bear 🐻", "") for name in "abcd"]
KEYS = [clip.key for clip in CLIPS]


def score(value: float) -> Score:
    return Score({"quality": value}, 10 * value, {"logits": (value, -value)})


def test_one_row_per_clip_in_the_order_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "new/scores.parquet"
    with open_scores(out, ONE) as table:
        table.add(CLIPS[2:], {"one": [score(3.0), "it is damaged"]})
        table.add(CLIPS[:2], {"one": [score(1.0), score(2.0)]})
        assert table.scored == set(KEYS[:3])
        table.merge(KEYS)
    rows = pq.read_table(out).to_pylist()
    assert list(rows[0]) == ["video", "prompt", "total", "quality", "raw", "error"]
    assert [row["video"] for row in rows] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert [row["total"] for row in rows] == [10.0, 20.0, 30.0, None]
    assert [row["quality"] for row in rows] == [1.0, 2.0, 3.0, None]
    assert json.loads(rows[0]["raw"]) == {"logits": [1.0, -1.0]}
    assert [row["error"] for row in rows] == [None, None, None, "one: it is damaged"]
    left = {path.name for path in out.parent.iterdir()}
    assert left == {"scores.parquet", ".scores.parquet.lock"}


def test_what_was_added_survives_a_kill_and_errors_are_tried_again(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    with open_scores(out, ONE) as table:
        table.add(CLIPS[:2], {"one": [score(1.0), "lost"]})
        (tmp_path / "scores.parquet.parts/.000009.parquet.partial").write_bytes(b"torn")
    assert not out.exists(), "as after a kill: nothing was merged"
    parts = shutil.copytree(tmp_path / "scores.parquet.parts", tmp_path / "copy")
    with open_scores(out, ONE) as table:
        assert table.scored == {KEYS[0]}
        table.add(CLIPS[1:3], {"one": [score(2.0), score(3.0)]})
        table.merge(KEYS)
    shutil.copytree(parts, tmp_path / "scores.parquet.parts", dirs_exist_ok=True)
    with open_scores(out, ONE) as table:  # as if killed after merging, before parts were removed
        assert table.scored == set(KEYS[:3])
        assert table.merge(KEYS)["total"].to_pylist() == [10.0, 20.0, 30.0]


def test_several_models_have_their_own_columns_and_weights(tmp_path: Path) -> None:
    results: dict[str, list[Result]] = {
        "one": [score(1.0), "no", "score_not_finite"],
        "two": [Score({"quality": 5.0, "motion": 6.0}, 0.5), score(2.0), "no"],
    }
    with open_scores(tmp_path / "scores.parquet", TWO) as table:
        table.add(CLIPS[:3], results)
        merged = table.merge()
    assert dimension_names(merged) == ["one.quality", "two.quality", "two.motion"]
    first, second, third = merged.to_pylist()
    assert first["total"] == 2.0 * 10.0 + 0.5
    assert (second["total"], second["two.quality"], second["error"]) == (None, 2.0, "one: no")
    assert third["error"] == "one: score_not_finite\ntwo: no"


def test_many_parts_are_merged_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_table, "_MAX_PARTS", 3)
    with open_scores(tmp_path / "scores.parquet", ONE) as table:
        for number in range(7):
            table.add([Clip(str(number), "p", "")], {"one": [score(number)]})
        assert len(list((tmp_path / "scores.parquet.parts").iterdir())) == 1
        assert table.merge()["quality"].to_pylist() == [float(n) for n in range(7)]


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
def test_a_file_that_another_program_wrote_again_is_gone_on_with(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    with open_scores(out, ONE) as table:
        table.add(CLIPS[:2], {"one": [score(1.0), "lost"]})
        written = table.merge(KEYS)
    for number, field in enumerate(written.schema):
        if field.type == pa.string():
            column = written[field.name]
            column = column.dictionary_encode() if kind == "dictionary" else column.cast(kind)
            written = written.set_column(number, field.name, column)
    pq.write_table(written, out)
    with open_scores(out, ONE) as table:
        assert table.scored == {KEYS[0]}
        table.add(CLIPS[1:2], {"one": [score(2.0)]})
        assert table.merge(KEYS)["quality"].to_pylist() == [1.0, 2.0]
    assert read_scores(out).scores[KEYS[1]] == Score({"quality": 2.0}, 20.0, {"logits": [2, -2]})


def test_clips_that_cannot_be_scored_are_noted_until_their_prompt_is_mended(tmp_path: Path) -> None:
    with open_scores(tmp_path / "scores.parquet", TWO) as table:
        table.refuse({})
        table.refuse({("a.mp4", "half \\ud83d"): "prompts.jsonl, line 2: is half"})
        table.add([CLIPS[1]], {"one": ["no \ud83d"], "two": [score(2.0)]})
        merged = table.merge([CLIPS[0].key, CLIPS[1].key])
        assert merged["error"].to_pylist() == [
            "one: no \\ud83d",
        ], "the first has another prompt now"
        table.refuse({("a.mp4", "half \\ud83d"): "prompts.jsonl, line 2: is half"})
        errors = table.merge([("a.mp4", "half \\ud83d")])["error"].to_pylist()
    assert errors == ["one: prompts.jsonl, line 2: is half", "one: no \\ud83d"]


def test_scores_of_other_models_and_other_files_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    with open_scores(out, ONE) as table:
        table.add(CLIPS[:1], {"one": [score(1.0)]})
        with (
            pytest.raises(RunFolderError, match="another process is writing"),
            open_scores(out, ONE),
        ):
            pass
    of_others = pytest.raises(ConfigError, match=r'holds scores of .*"cpu".*give another --out')
    with of_others, open_scores(out, TWO):
        pass
    for other in (tmp_path / "mine.parquet", tmp_path / "text.parquet"):
        other.write_text("text") if "text" in other.name else pq.write_table(
            pa.table({"video": ["a"]}), other
        )
        before = other.read_bytes()
        with pytest.raises(ConfigError, match="give another --out"), open_scores(other, ONE):
            pass
        assert other.read_bytes() == before

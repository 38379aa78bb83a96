"""Scores survive kills, come out in order and never mix models."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_server import serve
from videorl.config import RewardConfig
from videorl.data import score_table
from videorl.data.clips import Clip, ClipSource, find_clips
from videorl.data.score_reading import read_scores
from videorl.data.score_rows import dimension_names
from videorl.data.score_table import open_scores
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


def test_a_table_that_was_stopped_before_its_first_score_is_merged(tmp_path: Path) -> None:
    with open_scores(tmp_path / "scores.parquet", ONE) as table:
        assert table.merge(KEYS).num_rows == 0
    with open_scores(tmp_path / "scores.parquet", ONE) as table:
        assert table.scored == set()


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


def folder_of(place: Path) -> tuple[list[RewardConfig], ClipSource]:
    """Make a reward checkpoint, a file that an option names, and two clips with their prompts."""
    (place / "reward").mkdir()
    (place / "reward/model.pth").write_bytes(b"weights")
    (place / "weights.json").write_text("[1]")
    (place / "clips").mkdir()
    for name in "ab":
        (place / f"clips/{name}.mp4").write_bytes(name.encode())
        (place / f"clips/{name}.txt").write_text("a bear")
    options = {"weights": str(place / "weights.json")}
    reward = RewardConfig(name="vision_reward", path=str(place / "reward"), options=options)
    return [reward], find_clips(place / "clips")


def fill(out: Path, rewards: list[RewardConfig], source: ClipSource, value: float) -> list[str]:
    """Score what has no score, as `videorl score` does; return what that was."""
    with open_scores(out, rewards) as table:
        table.forget_changed(source)
        clips = list(source.read(set(source.keys) - table.scored))
        if clips:
            table.add(clips, {"vision_reward": [score(value)] * len(clips)})
        table.merge(source.keys)
    return [clip.id for clip in clips]


@pytest.mark.parametrize("file", ["reward/model.pth", "weights.json"])
def test_scores_of_what_a_model_was_are_refused(file: str, tmp_path: Path) -> None:
    rewards, source = folder_of(tmp_path)
    out = tmp_path / "scores.parquet"
    fill(out, rewards, source, 1.0)
    before = out.read_bytes()
    (tmp_path / file).write_bytes(b"[22222]")
    with pytest.raises(ConfigError) as refused:
        fill(out, rewards, source, 2.0)
    assert f"={tmp_path / file.partition('/')[0]} holds something else than on 20" in str(
        refused.value
    )
    assert "give another --out; to score everything again, remove" in str(refused.value)
    assert out.read_bytes() == before


def test_a_model_that_was_copied_or_touched_is_the_same(tmp_path: Path) -> None:
    rewards, source = folder_of(tmp_path)
    out = tmp_path / "scores.parquet"
    fill(out, rewards, source, 1.0)
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    assert fill(out, rewards, source, 2.0) == []
    (tmp_path / "reward").rename(tmp_path / "moved")
    (tmp_path / "weights.json").rename(tmp_path / "moved.json")
    there = {"weights": str(tmp_path / "moved.json")}
    moved = dataclasses.replace(rewards[0], path=str(tmp_path / "moved"), options=there)
    assert fill(out, [moved], source, 2.0) == []
    assert fill(out, [moved], source, 2.0) == [], "the new place is noted"
    with pytest.raises(ConfigError, match="were asked for"):
        fill(out, [dataclasses.replace(moved, options={})], source, 2.0)


def test_scores_keep_the_commit_that_they_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, source = folder_of(tmp_path)
    out = tmp_path / "scores.parquet"

    def asked(path: str = "a/reward") -> list[RewardConfig]:
        return [RewardConfig(name="vision_reward", path=path)]

    with serve(monkeypatch, tmp_path / "cache") as hub:
        first = hub.add("a/reward", {"model.pth": "1"})
        assert fill(out, rewards := asked(), source, 1.0) == ["a.mp4", "b.mp4"]
        assert rewards[0].path == f"a/reward@{first}", "what workers get"
        second = hub.add("a/reward", {"model.pth": "2"})
        hub.refusals["a/reward"] = (503, "")
        assert fill(out, rewards := asked(), source, 2.0) == []
        assert rewards[0].path == f"a/reward@{first}", "the hub need not answer again"
        del hub.refusals["a/reward"]
        assert fill(out, asked(f"a/reward@{first}"), source, 2.0) == [], "it is the same"
        with pytest.raises(ConfigError, match=rf"reward@{second}.*give another --out"):
            fill(out, asked(f"a/reward@{second}"), source, 2.0)


def test_a_video_that_changed_is_scored_again_and_only_that(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rewards, source = folder_of(tmp_path)
    out = tmp_path / "scores.parquet"
    assert fill(out, rewards, source, 1.0) == ["a.mp4", "b.mp4"]
    os.utime(tmp_path / "clips/a.mp4", (1, 1))
    assert fill(out, rewards, source, 2.0) == []
    assert not caplog.text
    (tmp_path / "clips/a.mp4").write_bytes(b"!")
    assert fill(out, rewards, source, 2.0) == ["a.mp4"]
    assert "scored again, since these videos have changed: a.mp4\n" in caplog.text
    table = pq.read_table(out)
    assert table["total"].to_pylist() == [20.0, 10.0]
    assert table["content"].to_pylist() == [
        hashlib.sha256(video).hexdigest() for video in (b"!", b"b")
    ]
    (tmp_path / "clips/a.mp4").write_bytes(b"?")
    with open_scores(out, rewards) as opened:
        opened.forget_changed(source)
        clips = list(source.read({source.keys[0]}))
        opened.add(clips, {"vision_reward": ["it is damaged"]})
        merged = opened.merge(source.keys)
    assert merged["total"].to_pylist() == [None, 10.0], "an old score does not win over an error"
    assert fill(out, rewards, source, 3.0) == ["a.mp4"]


def test_videos_in_a_parquet_file_are_known_by_content_too(tmp_path: Path) -> None:
    rewards, _ = folder_of(tmp_path)

    def source(*videos: bytes) -> ClipSource:
        table = pa.table({"video": [*videos], "prompt": ["a bear"] * len(videos)})
        pq.write_table(table, tmp_path / "clips.parquet")
        return find_clips(tmp_path / "clips.parquet")

    out = tmp_path / "scores.parquet"
    assert fill(out, rewards, source(b"a", b"b"), 1.0) == ["row 0", "row 1"]
    assert fill(out, rewards, source(b"a", b"c", b"b"), 2.0) == ["row 1", "row 2"]


def test_scores_of_an_older_version_are_kept_and_noted(tmp_path: Path) -> None:
    rewards, source = folder_of(tmp_path)
    out = tmp_path / "scores.parquet"
    fill(out, rewards, source, 1.0)
    older = pq.read_table(out).drop_columns(["content"])
    metadata = {b"videorl.rewards": older.schema.metadata[b"videorl.rewards"]}
    pq.write_table(older.replace_schema_metadata(metadata), out)
    assert fill(out, rewards, source, 2.0) == []
    (tmp_path / "clips/b.mp4").write_bytes(b"!")
    assert fill(out, rewards, source, 2.0) == ["b.mp4"]
    (tmp_path / "reward/model.pth").write_bytes(b"others")
    with pytest.raises(ConfigError, match=r"model.pth differs"):
        fill(out, rewards, source, 2.0)


def test_a_video_that_is_not_here_keeps_its_score(tmp_path: Path) -> None:
    rewards, source = folder_of(tmp_path)
    out = tmp_path / "scores.parquet"
    fill(out, rewards, source, 1.0)
    (tmp_path / "clips/a.mp4").unlink()
    assert fill(out, rewards, source, 2.0) == []


def test_scores_of_own_code_that_has_changed_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "changing.py").write_text("class Mine: ...\nclass Other(Mine): ...\n")
    importlib.import_module("changing")
    _, source = folder_of(tmp_path)
    out, mine = (
        tmp_path / "scores.parquet",
        [RewardConfig(name="changing:Mine", label="vision_reward")],
    )
    fill(out, mine, source, 1.0)
    assert fill(out, mine, source, 2.0) == []
    with pytest.raises(ConfigError, match="were asked for"):
        fill(out, [RewardConfig(name="changing:Other", label="vision_reward")], source, 2.0)
    (tmp_path / "changing.py").write_text("class Mine: better = True\n")
    with pytest.raises(ConfigError, match=r"name \(code\)=changing:Mine .*changing.py differs"):
        fill(out, mine, source, 2.0)

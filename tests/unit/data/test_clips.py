"""Videos and prompts of folders, Parquet files and archives; what they lack is named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videorl.data.clips import Clip, ClipSource, find_clips
from videorl.errors import ArchiveError, PromptError, VideoError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def clips_of(source: ClipSource) -> list[Clip]:
    clips = list(source.read(set(source.keys)))
    assert tuple(clip.key for clip in clips) == source.keys
    return clips


def test_a_folder_with_a_text_beside_each_video(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "b.mp4", "deep/er/a.MOV", ".hidden.mp4", "notes.pdf", "no_text.webm")
    (tmp_path / "b.txt").write_text("ein Bär 🐻\n")
    (tmp_path / "deep/er/a.txt").write_text(" a cat, running ")
    clips = clips_of(find_clips(tmp_path))
    assert [clip.key for clip in clips] == [
        ("b.mp4", "ein Bär 🐻"),
        ("deep/er/a.MOV", "a cat, running"),
        ("no_text.webm", ""),
    ]
    assert clips[1].content == str(tmp_path / "deep/er/a.MOV")
    assert "1 of 3 videos have no prompt" in caplog.text


@pytest.mark.parametrize("kind", ["csv", "jsonl", "given"])
def test_a_folder_with_a_table_of_prompts(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "clips"
    make(folder, "a.mp4", "sub/b.mp4", "c.mp4")
    (folder / "c.txt").write_text("from its text")
    (folder / "a.txt").write_text("the table wins")
    rows = [("./a.mp4", 'one, "two"'), ("sub/b.mp4", "bee"), ("sub/b.mp4", "or not"), ("x.mp4", "")]
    if kind == "jsonl":
        quoted = [(video, text.replace('"', '\\"')) for video, text in rows]
        lines = [f'{{"video": "{video}", "prompt": "{text}"}}\n' for video, text in quoted]
    else:
        quoted = [(video, text.replace('"', '""')) for video, text in rows]
        lines = ["\ufeffprompt,video,extra\n", *(f'"{t}",{v},1\n' for v, t in quoted)]
    table = tmp_path / "elsewhere.csv" if kind == "given" else folder / f"prompts.{kind}"
    table.write_text("".join(lines))
    clips = clips_of(find_clips(folder, table if kind == "given" else None))
    assert [clip.key for clip in clips] == [
        ("a.mp4", 'one, "two"'),
        ("sub/b.mp4", "bee"),
        ("sub/b.mp4", "or not"),
        ("x.mp4", ""),
        ("c.mp4", "from its text"),
    ]


def test_a_parquet_file_with_paths(tmp_path: Path) -> None:
    table = {"video": ["sub/a.mp4", "/abs/b.mp4"], "prompt": ["one", None]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    first, second = clips_of(find_clips(tmp_path / "in.parquet"))
    assert first == Clip("sub/a.mp4", "one", str(tmp_path / "sub/a.mp4"))
    assert second == Clip("/abs/b.mp4", "", "/abs/b.mp4")


@pytest.mark.parametrize("nested", [False, True])
def test_a_parquet_file_with_contents_reads_only_what_is_asked_for(
    tmp_path: Path, nested: bool
) -> None:
    contents = [f"file {n}".encode() for n in range(20)]
    videos = [{"bytes": content, "path": None} for content in contents] if nested else contents
    table = pa.table({"video": videos, "prompt": ["p"] * 20, "id": [f"v{n}" for n in range(20)]})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=6)
    source = find_clips(tmp_path / "in.parquet")
    assert [clip.content for clip in clips_of(source)] == contents
    wanted = {source.keys[7], source.keys[19]}
    assert [clip.content for clip in source.read(wanted)] == [b"file 7", b"file 19"]
    unnamed = table.drop_columns(["id"])
    pq.write_table(unnamed, tmp_path / "in.parquet")
    assert find_clips(tmp_path / "in.parquet").keys[19] == ("row 19", "p")


def test_a_run_gives_the_candidates_whose_video_was_kept(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    kept = "videos/step-000000/r000000-p000000-c01.mp4"
    make(tmp_path, f"archive/{kept}", "evaluation/before/000000.mp4")
    rows = {"candidate_id": ["c00", "c01"], "prompt": ["a ball"] * 2, "video": [None, kept]}
    (archive / "candidates").mkdir()
    pq.write_table(pa.table(rows), archive / "candidates/step-000000.parquet")
    for place in (tmp_path, archive):
        assert clips_of(find_clips(place)) == [Clip("c01", "a ball", str(archive / kept))]
    pq.write_table(pa.table(rows).slice(0, 1), archive / "candidates/step-000000.parquet")
    with pytest.raises(VideoError, match="holds no video"):
        find_clips(tmp_path)
    rows["video"][1] = "../evaluation/before/000000.mp4"
    pq.write_table(pa.table(rows), archive / "candidates/step-000000.parquet")
    with pytest.raises(ArchiveError, match="outside of it"):
        find_clips(tmp_path)


def test_places_and_tables_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="nowhere: no such folder"):
        find_clips(tmp_path / "nowhere")
    with pytest.raises(VideoError, match=r"holds no video \(\.avi"):
        find_clips(tmp_path)
    make(tmp_path, "a.mp4", "in.parquet")
    with pytest.raises(VideoError, match=r"in\.parquet is not a readable Parquet file"):
        find_clips(tmp_path / "in.parquet")
    pq.write_table(pa.table({"video": ["a"], "caption": ["b"]}), tmp_path / "in.parquet")
    with pytest.raises(VideoError, match=r"no column 'prompt', but video, caption"):
        find_clips(tmp_path / "in.parquet")
    damaged = (tmp_path / "in.parquet").read_bytes().replace(b"caption", b"capti\xff\xff")
    (tmp_path / "in.parquet").write_bytes(damaged)
    with pytest.raises(VideoError, match=r"in\.parquet is not a readable Parquet file: 'utf-8'"):
        find_clips(tmp_path / "in.parquet")
    pq.write_table(pa.table({"video": [1], "prompt": ["b"]}), tmp_path / "in.parquet")
    with pytest.raises(VideoError, match=r"column 'video' must be paths or bytes .*, got int64"):
        find_clips(tmp_path / "in.parquet")
    with pytest.raises(PromptError, match=r"cannot read prompts of videos: .*none\.csv cannot be"):
        find_clips(tmp_path, tmp_path / "none.csv")
    with pytest.raises(VideoError, match=r"a\.mp4 is of no kind that is read: \.csv, \.jsonl"):
        find_clips(tmp_path / "a.mp4")
    for content, said in (
        (b"video,caption\na.mp4,b\n", "has no column 'prompt', but video, caption"),
        (b"video,prompt\na.mp4,\xff\n", "line 2: byte 7 is not UTF-8"),
        (b'video,prompt\na.mp4,"b\nb.mp4,c\n', "line 2: is not CSV"),
    ):
        (tmp_path / "prompts.csv").write_bytes(content)
        with pytest.raises(PromptError, match=rf"prompts\.csv.* {said}"):
            find_clips(tmp_path)
    (tmp_path / "prompts.csv").unlink()
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(PromptError, match=r"can be scored: a\.txt .* not UTF-8"):
        find_clips(tmp_path)


BAD_ROWS = {
    "prompts.csv": (
        b"video,prompt\na.mp4,a cat\nb.mp4,a dog, running\nc.mp4,\xed\xa0\xbd\n,nothing\n"
        b'd.mp4,"first\nsecond"\ne.mp4,"x\xe2\x80\xa8y"\n'
    ),
    "prompts.jsonl": (
        b'{"video": "a.mp4", "prompt": "a cat"}\n{"video": "b.mp4", "prompt": 3}\n'
        b'{"video": "c.mp4", "prompt": "\\ud83d"}\n{oops\n'
        b'{"video": "d.mp4", "prompt": "first\\nsecond"}\n'
        b'{"video": "e.mp4", "prompt": "x\xe2\x80\xa8y"}\n'
    ),
}


@pytest.mark.parametrize("name", list(BAD_ROWS))
def test_a_row_that_cannot_be_used_costs_its_video_alone(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make(tmp_path, "a.mp4", "b.mp4", "c.mp4", "d.mp4", "e.mp4", "f.mp4", "g.mp4")
    (tmp_path / "f.txt").write_text("its own")
    (tmp_path / name).write_bytes(BAD_ROWS[name])
    source = find_clips(tmp_path)
    assert source.keys == (
        ("a.mp4", "a cat"),
        ("d.mp4", "first\nsecond"),
        ("e.mp4", "x\u2028y"),
        ("f.mp4", "its own"),
    )
    refused = {video: why for (video, _), why in source.refused.items()}
    assert list(refused) == ["b.mp4", "c.mp4", "g.mp4"]
    assert f"{name}, line 3: has 3 fields" in refused["b.mp4"] or "must be text" in refused["b.mp4"]
    assert "half of a surrogate pair" in refused["c.mp4"]
    place = f"{name}, line {5 if name == 'prompts.csv' else 4}: "
    assert place in caplog.text
    # That row names no file: it may have been the one of g.mp4, which has no prompt of its own.
    assert f"no row names it, but one cannot be read: {place}" in refused["g.mp4"]


def test_names_and_texts_that_are_not_utf8_cost_their_video_alone(tmp_path: Path) -> None:
    make(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"")
    (tmp_path / "a.txt").write_text("a cat\r\n asleep", newline="")
    (tmp_path / "b.txt").write_bytes("ein Bär\n".encode("utf-16"))
    source = find_clips(tmp_path)
    assert source.keys == (("a.mp4", "a cat\n asleep"),)
    refused = {video: why for (video, _), why in source.refused.items()}
    assert "UTF-16" in refused["b.mp4"]
    assert "not UTF-8; rename it" in refused["caf\\udce9.mp4"]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), "dictionary"])
def test_paths_may_be_any_text_column_of_arrow(kind: Any, tmp_path: Path) -> None:
    def column(*values: str | None) -> pa.Array:
        made = pa.array(values, pa.large_string() if kind == "dictionary" else kind)
        return made.dictionary_encode() if kind == "dictionary" else made

    table = {"video": column("sub/a.mp4", None), "prompt": column("one", None), "id": [0, 1]}
    pq.write_table(pa.table(table), tmp_path / "in.parquet")
    source = find_clips(tmp_path / "in.parquet")
    assert clips_of(source) == [Clip("0", "one", str(tmp_path / "sub/a.mp4"))]
    assert source.refused == {("1", ""): "in.parquet, row 2: has no video"}


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_contents_may_be_any_binary_column_of_arrow(kind: pa.DataType, tmp_path: Path) -> None:
    videos = pa.array([b"first", b"second"], kind)
    prompts = pa.array([b"caf\xe9", b"two"]).view(pa.string())
    pq.write_table(pa.table({"video": videos, "prompt": prompts}), tmp_path / "in.parquet")
    source = find_clips(tmp_path / "in.parquet")
    assert clips_of(source) == [Clip("row 1", "two", b"second")]
    assert "row 1: prompt is not UTF-8" in source.refused["row 0", ""]


def test_contents_may_be_paths_beside_bytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    videos = [{"bytes": b"x", "path": "a.mp4"}, {"bytes": None, "path": "b.mp4"}, None]
    table = pa.table({"video": videos, "prompt": ["p"] * 3, "id": ["a", "b", "b"]})
    pq.write_table(table, tmp_path / "in.parquet")
    contents = [clip.content for clip in clips_of(find_clips(tmp_path / "in.parquet"))]
    assert contents == [b"x", str(tmp_path / "b.mp4")]
    assert "1 videos are listed before with the same id and prompt" in caplog.text


def test_any_table_lists_videos(tmp_path: Path) -> None:
    for name, content in (
        ("in.csv", "id,video,prompt\nx,sub/a.mp4,a cat\n"),
        ("in.json", '[{"id": "x", "video": "sub/a.mp4", "prompt": "a cat"}]'),
    ):
        (tmp_path / name).write_text(content)
        (clip,) = clips_of(find_clips(tmp_path / name))
        assert clip == Clip("x", "a cat", str(tmp_path / "sub/a.mp4"))

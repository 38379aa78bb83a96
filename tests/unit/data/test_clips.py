"""Videos and prompts of folders, Parquet files and archives; what they lack is named."""

from __future__ import annotations

from pathlib import Path

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
    with pytest.raises(VideoError, match=r"in\.parquet is not a Parquet file"):
        find_clips(tmp_path / "in.parquet")
    pq.write_table(pa.table({"video": ["a"], "caption": ["b"]}), tmp_path / "in.parquet")
    with pytest.raises(VideoError, match=r"no column \['prompt'\]; it has video, caption"):
        find_clips(tmp_path / "in.parquet")
    with pytest.raises(PromptError, match=r"cannot read prompts from .*none\.csv"):
        find_clips(tmp_path, tmp_path / "none.csv")
    for content in (b"video,caption\na.mp4,b\n", b"video,prompt\na.mp4,\xff\n"):
        (tmp_path / "prompts.csv").write_bytes(content)
        with pytest.raises(PromptError, match=r"prompts\.csv must be UTF-8 with `video`"):
            find_clips(tmp_path)
    (tmp_path / "prompts.csv").unlink()
    (tmp_path / "prompts.jsonl").write_text('{"video": "a.mp4", "prompt": "b"}\n["a"]\n{')
    with pytest.raises(PromptError, match=r"prompts\.jsonl must be UTF-8"):
        find_clips(tmp_path)
    (tmp_path / "prompts.jsonl").unlink()
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(PromptError, match=r"a\.txt is not UTF-8"):
        find_clips(tmp_path)

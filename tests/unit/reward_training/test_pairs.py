"""Files of labelled pairs: published columns, rows that are skipped, files that are refused."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videorl.errors import DatasetError
from videorl.reward_training.pairs import read_pairs

HEADER = "path_A,path_B,A_model,prompt,VQ,MQ,TA,fps_A\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "labels.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_published_columns_are_read(folder: Path) -> None:
    rows = 'a.mp4,b.mp4,Gen-3,"a cat, running",A,same,invalid,8\nb.mp4,a.mp4,,x,B,B,B,\n'
    found = read_pairs(write(folder, "\ufeff" + HEADER + rows))
    assert found.num_skipped == 0
    assert [pair.prompt for pair in found.pairs] == ["a cat, running", "x"]
    assert [pair.labels for pair in found.pairs] == [(1, 0, 22), (-1, -1, -1)]
    assert found.pairs[1].path_a == folder / "b.mp4"
    elsewhere = write(folder / "..", HEADER + rows)
    assert read_pairs(elsewhere, folder).pairs == found.pairs


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("a.mp4,c.mp4,,x,A,A,A,8", "there is no file .*c.mp4"),
        ("a.mp4,b.mp4,,x,A,better,A,8", "MQ is 'better', expected one of A, B, same, invalid"),
        ("a.mp4,b.mp4,,x,invalid,invalid,invalid,8", "every label is invalid"),
        ("a.mp4,b.mp4,, ,A,A,A,8", "nothing in column"),
        ("a.mp4,b.mp4", "has 2 fields, but the header has 8"),
        ("a.mp4,b.mp4,,x, y,A,A,A,8", "has 9 fields, but the header has 8; a text with commas"),
        (f"{'a' * 300}.mp4,b.mp4,,x,A,A,A,8", "there is no file"),
    ],
)
def test_bad_rows_are_logged_and_counted(
    folder: Path, caplog: pytest.LogCaptureFixture, row: str, reason: str
) -> None:
    path = write(folder, f"{HEADER}a.mp4,b.mp4,,x,A,A,A,8\n{row}\n")
    with caplog.at_level(logging.WARNING):
        found = read_pairs(path)
    assert (len(found.pairs), found.num_skipped) == (1, 1)
    assert "line 3 skipped" in caplog.text
    with pytest.raises(DatasetError, match="no usable row; 1 were skipped"):
        read_pairs(write(folder, f"{HEADER}{row}\n"))
    assert re.search(reason, caplog.text)


def test_unreadable_files_are_refused(folder: Path) -> None:
    with pytest.raises(DatasetError, match="has no column 'MQ', but path_A"):
        read_pairs(write(folder, "path_A,path_B,prompt,VQ\na.mp4,b.mp4,x,A\n"))
    with pytest.raises(DatasetError, match="cannot be read"):
        read_pairs(folder / "none.csv")
    (folder / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match="begins with the byte-order mark of UTF-16"):
        read_pairs(folder / "labels.csv")
    with pytest.raises(DatasetError, match="line 3: is not CSV"):
        read_pairs(write(folder, HEADER + 'a.mp4,b.mp4,,x,A,A,A,8\na.mp4,b.mp4,,"x,A,A,A,8\n\n'))


@pytest.mark.parametrize("kind", ["parquet", "json", "jsonl"])
def test_any_table_holds_labels(folder: Path, kind: str) -> None:
    row = {"path_A": "a.mp4", "path_B": "b.mp4", "prompt": "one\u2028line", "VQ": "A"}
    rows = [row, {**row, "prompt": "half \ud83d", "VQ": "B"}, {**row, "VQ": None}]
    path = folder / f"labels.{kind}"
    if kind == "parquet":
        rows[1]["prompt"] = None
        table = pa.Table.from_pylist(rows)
        columns = [column.dictionary_encode() for column in table.columns]
        pq.write_table(pa.table(columns, names=table.column_names), path)
    else:
        lines = list(map(json.dumps, rows))
        path.write_text(json.dumps(rows) if kind == "json" else "\n".join(lines))
    found = read_pairs(path, dimensions=["VQ"])
    assert ([pair.prompt for pair in found.pairs], found.num_skipped) == (["one\u2028line"], 2)

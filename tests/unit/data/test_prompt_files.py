"""Prompt files as people have them."""

from __future__ import annotations

import codecs
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from videorl.data.prompt_files import read_prompts
from videorl.data.prompt_rows import PromptRow
from videorl.errors import PromptError

ROWS = [
    PromptRow("a cat, asleep", "c-1", ("animal", "slow"), 2.0),
    PromptRow('he said "go"\nand left', "", (), 1.0),
    PromptRow("a dög", "7", ("slow",), 0.0),
]


def save(path: Path, kind: str) -> Path:
    """Write `ROWS` as a file of one kind, with a byte-order mark and CRLF where it is text."""
    path = path / f"prompts.{kind}"
    if kind == "parquet":
        columns: dict[str, list[Any]] = {
            "prompt": [row.text for row in ROWS],
            "id": ["c-1", None, "7"],
            "tags": [["animal", "slow"], None, ["slow"]],
            "weight": [2.0, None, 0.0],
            "other": [b"bytes", None, None],
        }
        pq.write_table(pa.table(columns), path)
    elif kind == "jsonl":
        rows = [
            {"prompt": ROWS[0].text, "id": "c-1", "tags": ["animal", "slow"], "weight": 2},
            {"prompt": ROWS[1].text, "unknown": {"a": 1}, "id": None, "tags": None, "weight": None},
            {"prompt": ROWS[2].text, "id": 7, "tags": "slow", "weight": 0},
        ]
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_bytes(codecs.BOM_UTF8 + "\r\n".join(lines).encode())
    else:
        text = (
            "id, prompt,tags,weight\r\n"
            'c-1, "a cat, asleep","animal, slow",2\r\n'
            ',"he said ""go""\r\nand left",,\r\n'
            "7,a dög,slow,0\r\n"
        )
        path.write_bytes(codecs.BOM_UTF8 + text.encode())
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_table_has_prompts_ids_tags_and_weights(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path, kind)
    assert read_prompts(path) == ROWS
    assert caplog.text == ""
    expected = r"has no column 'promt', but .*; did you mean 'prompt'\? prompts\.column, or eval"
    with pytest.raises(PromptError, match=expected):
        read_prompts(path, "promt")


def test_the_column_may_have_another_name(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("caption\na cat\n")
    assert read_prompts(tmp_path / "captions.csv", "caption") == [PromptRow("a cat")]
    (tmp_path / "plain.txt").write_text("a cat\n")
    with pytest.raises(PromptError, match=r"read as plain text, which has no column 'caption'"):
        read_prompts(tmp_path / "plain.txt", "caption")


JSON_CASES = [
    ('{"prompt": "a"}\n{oops\n', "a.jsonl, line 2: is not JSON (Expecting"),
    ('"a"\n', "line 1: must be a JSON object, got"),
    ('{"prompt": "a"}\n\n{"text": "b"}\n', "line 3: has no column 'prompt', but text; prompts.col"),
    ("{}\n", "line 1: has no column 'prompt', but none at all"),
    ('{"prompt": 3}\n', "line 1: prompt must be text, got 3"),
    ('{"prompt": "a", "id": 1.5}\n', "line 1: id must be text or a whole number, got 1.5"),
    ('{"prompt": "a", "weight": -1}\n', "line 1: weight must be a number >= 0, got -1"),
    ('{"prompt": "a", "weight": true}\n', "line 1: weight must be a number >= 0, got nan"),
    ('{"prompt": "a", "weight": NaN}\n', "line 1: weight must be a number >= 0, got nan"),
    ('{"prompt": "a", "weight": 1e999}\n', "line 1: weight must be a number >= 0, got inf"),
    ('{"prompt": "a", "weight": 1%s}\n' % ("0" * 400), "line 1: weight must be a number >= 0"),
    ('{"prompt": "a", "weight": [1]}\n', "line 1: weight must be a number >= 0, got [1]"),
    ('{"prompt": "a", "weight": 0}\n', "all weights are 0"),
    ('{"prompt": "a", "tags": 3}\n', "line 1: tags must be a list of texts, or text"),
    ('{"prompt": "a", "tags": {"b": 1}}\n', "line 1: tags must be a list of texts, or text"),
    ('{"prompt": "half a pair: \\ud83d"}\n', "line 1: 'half a pair: \\ud83d' is not valid Unic"),
    (
        '{"prompt": 1}\n{"prompt": "a"}\n' + '{"prompt": 2}\n' * 6,
        "a.jsonl: 7 rows cannot be used, line 1: prompt must be text, got 1; line 3: ",
    ),
    ("\n", "a.jsonl holds no prompt: all of its 1 rows are blank"),
    ("", "a.jsonl holds no prompt: it is empty"),
]
CSV_CASES = [
    ("prompt,weight\na,much\n", "line 2: weight must be a number >= 0, got 'much'"),
    ('prompt,id\n"a\nb",1\nc\n', "line 4: has 1 fields, but the header has 2; a text with commas"),
    ("prompt\na, b\n", "line 2: has 2 fields, but the header has 1; a text with commas must be"),
    ("prompt,id\n\n\na,b,c\n", "line 4: has 3 fields, but the header has 2"),
    ('prompt,id\na,1\n"b,2\nc,3\nd,4\n', "line 3: is not CSV (unexpected end of data)"),
    ("prompt,id\na,1\nb,1\n", "line 3: id '1' is that of line 2 too"),
    ("prompt,prompt\na,b\n", "a.csv has 2 columns 'prompt'"),
    ("id,prompt,id\n1,a,1\n", "a.csv has 2 columns 'id'"),
    ("prompt;id\na;1\n", "has no column 'prompt', but 'prompt;id'; separate columns by commas"),
    ("prompt\n", "a.csv holds no prompt: it is empty"),
    ("", "a.csv holds no prompt: it is empty"),
    ("PAR1xx", "a.csv is a Parquet file: end its name in .parquet"),
]
TEXT_CASES = [
    ('{"prompt": "a"}\n{"prompt": "b"}\n', "a.txt looks like JSON lines: end its name in .jsonl"),
    ('id,"prompt"\n1,a\n', "a.txt looks like CSV, with a header: end its name in .csv"),
    ("PAR1\0\0xx", "a.txt is a Parquet file: end its name in .parquet"),
    ("PK\x03\x04\0\0", "a.txt is a zip archive, as Excel workbooks are: save the table as CSV"),
    ("a\0b\0", "a.txt holds zero bytes, as UTF-16LE text does; save it as UTF-8"),
    ("", "a.txt holds no prompt: it is empty"),
    ("\n \n", "a.txt holds no prompt: all of its 2 rows are blank"),
]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        *(("a.jsonl", *case) for case in JSON_CASES),
        *(("a.csv", *case) for case in CSV_CASES),
        *(("a.txt", *case) for case in TEXT_CASES),
        ("a.parquet", "no table", "a.parquet is not a readable Parquet file"),
        ("a.json", "[]", "a.json is of no kind that is read: end its name in .jsonl"),
        ("a.tsv", "prompt\tid\n", "a.tsv is of no kind that is read: save it as .csv"),
    ],
)
def test_what_cannot_be_used_is_named_by_line(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PromptError) as raised:
        read_prompts(tmp_path / name)
    assert expected in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"prompt": [1, 2]}, "a.parquet: 2 rows cannot be used, row 1: prompt must be text, got 1"),
        ({"prompt": ["a", "b"], "weight": [1.0, float("nan")]}, "row 2: weight must be a number"),
        ({"prompt": ["a"], "id": [1.0]}, "row 1: id must be text or a whole number, got 1.0"),
        ({"prompt": pa.array([], pa.string())}, "a.parquet holds no prompt: it is empty"),
        (
            {"prompt": pa.array([b"ok", b"caf\xe9"], pa.binary()).view(pa.string())},
            "a.parquet is not a readable Parquet file: ",
        ),
    ],
)
def test_what_cannot_be_used_in_parquet_is_named_by_row(
    columns: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(PromptError) as raised:
        read_prompts(tmp_path / "a.parquet")
    assert expected in str(raised.value)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
def test_another_encoding_is_named_whatever_the_kind(name: str, tmp_path: Path) -> None:
    lines = {"a.jsonl": '{"prompt": "x"}\n{"prompt": "café"}\n'}.get(name, "prompt\nun café\n")
    (tmp_path / name).write_bytes(lines.encode("latin1"))
    with pytest.raises(PromptError, match=rf"{name}, line 2: byte \d+ is not UTF-8"):
        read_prompts(tmp_path / name)
    (tmp_path / name).write_bytes(lines.encode("utf-16"))
    with pytest.raises(PromptError, match=r"byte-order mark of UTF-16"):
        read_prompts(tmp_path / name)


def test_blank_and_repeated_rows_are_skipped_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,id\na,1\n,2\na,3\n\nb,4\n")
    with caplog.at_level(logging.WARNING):
        assert [row.id for row in read_prompts(path)] == ["1", "4"]
    expected = "skipped 2 blank and 1 duplicate rows, kept 2 prompts (line 3, line 5, line 4)"
    assert expected in caplog.text


def test_a_line_ends_where_editors_end_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    # A line separator of Unicode is part of a text, not the end of a line.
    path.write_text('{"prompt": "a\u2028b"}\n{"prompt": "c"}', encoding="utf-8")
    assert [row.text for row in read_prompts(path)] == ["a\u2028b", "c"]


def test_a_place_that_holds_no_file_says_what_to_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    expected = rf"from absent\.csv \(in {tmp_path}\): No such file.*give `moving_shapes`, module:"
    with pytest.raises(PromptError, match=expected):
        read_prompts(Path("absent.csv"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(PromptError, match="Is a directory"):
        read_prompts(tmp_path / "folder.csv")

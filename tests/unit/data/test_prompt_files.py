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
    ("\n{oops\n", "a.jsonl, line 2: is not JSON (Expecting"),
    ("[3]\n", "line 1: must be a JSON object, got [3]"),
    ('\n\n{"text": "b"}\n', "line 3: has no column 'prompt', but text; prompts.col"),
    ('{"prompt": "a", "prompt": "b"}\n', "line 1: has 2 columns 'prompt'"),
    ('{"prompt": %s}\n' % ("[" * 10000), "line 1: is not JSON ("),
    ('{"prompt": %s}\n' % ("9" * 5000), "line 1: is not JSON (Exceeds the limit"),
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
        '{"prompt": 1}\n\n' + '{"prompt": 2}\n' * 6,
        "a.jsonl: 7 rows cannot be used, line 1: prompt must be text, got 1; line 3: ",
    ),
    ("\n", "a.jsonl holds no prompt: all of its 1 rows are blank"),
    ("", "a.jsonl holds no prompt: it is empty"),
]
CSV_CASES = [
    ("prompt,weight\na,much\n", "line 2: weight must be a number >= 0, got 'much'"),
    ('prompt,id\n"a\n",1,2\nc\n', "line 4: has 1 fields, but the header has 2; a text with commas"),
    ("prompt\na, b\n", "line 2: has 2 fields, but the header has 1; a text with commas must be"),
    ("prompt,id\n\n\na,b,c\n", "line 4: has 3 fields, but the header has 2"),
    ('prompt,id\na,1\n"b,2\nc,3\nd,4\n', "line 3: is not CSV (unexpected end of data)"),
    ('prompt,id\n"a" b,1\n', "line 2: is not CSV (',' expected after '\"')"),
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
    ("Prompt\na cat\n", "a.txt looks like CSV, with a header: end its name in .csv"),
    ("video;text_prompt\n1.mp4;a cat\n", "a.txt looks like CSV, with a header"),
    ('["a cat", "a dog"]\n', "a.txt looks like JSON lines: end its name in .jsonl"),
    ('[\n  "a cat",\n  "a dog"\n]\n', "a.txt holds JSON: end its name in .json"),
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
        ("a.json", "[]", "a.json holds no prompt: it is empty"),
        ("a.json", '["a",\n"b"', "a.json, line 2, character 4: is not JSON (Expecting ',' delim"),
        ("a.json", "3", "a.json must hold a list of JSON objects, got 3"),
        ("a.json", '[{"text": "a"}]', "item 1: has no column 'prompt', but text"),
        ("a.json", "[" * 10000, "a.json is not JSON"),
        ("a.yaml", "- a cat\n", "a.yaml is of no kind that is read: end its name in .txt if"),
        ("a.txt.bz2", "BZh9", "a.txt.bz2 is compressed by bzip2: unpack it"),
        ("a.csv", "<!DOCTYPE html>\n", "a.csv is a web page, as a failed download leaves it"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"),
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
        ({"prompt": [None, "b"], "weight": [1.0, float("nan")]}, "row 2: weight must be a number"),
        ({"prompt": ["a"], "id": [1.5]}, "row 1: id must be text or a whole number, got 1.5"),
        ({"prompt": pa.array([], pa.string())}, "a.parquet holds no prompt: it is empty"),
        (
            {"prompt": pa.array([b"", b"caf\xe9"], pa.binary()).view(pa.string())},
            "row 2: prompt is not UTF-8 (byte 4: unexpected end of data)",
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


HALF = "is not valid Unicode: half of a surrogate pair"
BAD_ROWS = [
    (
        "a.jsonl",
        b'{"prompt": "a"}\n{"prompt": "\\ud83d"}\n{oops\n[3]\n{"prompt": "b"}\n',
        f"3 of 5 rows cannot be used and are left out: line 2: '\\ud83d' {HALF}; line 3: is",
    ),
    (
        "a.json",
        b'[{"prompt": "a"}, {"prompt": "\\ud83d"}, 3, "b"]',
        f"2 of 4 rows cannot be used and are left out: item 2: '\\ud83d' {HALF}; item 3: must be a",
    ),
    (
        "a.csv",
        b'prompt,id\na,1\n"\xed\xa0\xbd",2\nb, c,3\n"d" e,4\ne,1\nb,5\n',
        f"4 of 6 rows cannot be used and are left out: line 3: '\\ud83d' {HALF}; line 4: has",
    ),
    (
        "a.txt",
        b'a\n\xed\xa0\xbd\n{"prompt": "x"}\nb\n',
        f"2 of 4 rows cannot be used and are left out: line 2: '\\ud83d' {HALF}; line 3: is JSON",
    ),
]


@pytest.mark.parametrize(("name", "content", "expected"), BAD_ROWS)
def test_a_row_that_cannot_be_used_costs_itself_alone(
    name: str, content: bytes, expected: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert [row.text for row in read_prompts(path)] == ["a", "b"]
    assert f"{path}: {expected}" in caplog.text


def test_lists_that_people_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["a large red circle moving left", "a small blue square moving up"]
    for name, content in {
        "a.json": json.dumps(texts),
        "b.json": json.dumps([{"prompt": text} for text in texts], indent=2),
        "c.json": "".join(json.dumps({"prompt": text}) + "\n" for text in texts),
        "d.jsonl": "".join(json.dumps(text) + "\r\n" for text in texts),
        "e.csv": f'id,prompt\r\n0,"{texts[0]}"\r\n,\r\n1,{texts[1]}\r\n',
        "f": "\r".join(texts),
        "g.TXT": f"{texts[0]}\n\ufeff{texts[1]}\n",
    }.items():
        (tmp_path / name).write_text(content, newline="")
        assert [row.text for row in read_prompts(tmp_path / name)] == texts, name
    assert "cannot be used" not in caplog.text


@pytest.mark.parametrize("separator", list("\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
@pytest.mark.parametrize("kind", ["txt", "csv", "json", "jsonl", "parquet"])
def test_only_line_ends_divide_rows(kind: str, separator: str, tmp_path: Path) -> None:
    path, texts = tmp_path / f"a.{kind}", [f"a{separator}b", "c"]
    if kind == "parquet":
        pq.write_table(pa.table({"prompt": texts}), path)
    else:
        written = {
            "txt": "\n".join(texts),
            "csv": "\n".join(["prompt", *texts]),
            "json": json.dumps(texts, ensure_ascii=kind == "json"),
            "jsonl": "\n".join(json.dumps({"prompt": text}) for text in texts),
        }
        path.write_text(written[kind], encoding="utf-8")
    assert [row.text for row in read_prompts(path)] == texts


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", None, "b"], pa.large_string()),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(
            pa.array([0, None, 1], pa.uint32()), pa.array(["a", "b"], pa.large_string())
        ),
    ],
)
def test_any_text_column_of_arrow(column: pa.Array, tmp_path: Path) -> None:
    tags = pa.array([["x", None], None, []], pa.large_list(pa.large_string()))
    ids = pa.array([1.0, None, None])  # whole numbers, where pandas misses some
    table = pa.table({"prompt": column, "tags": tags, "id": ids, "weight": pa.nulls(3)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read_prompts(tmp_path / "a.parquet") == [PromptRow("a", "1", ("x",)), PromptRow("b")]


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

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

from videorl.data.prompt_files import PromptRow, read_prompts
from videorl.errors import PromptError

ROWS = [
    PromptRow("a cat, asleep", "c-1", ("animal", "slow"), 2.0),
    PromptRow('he said "go"\nand left', "", (), 1.0),
]


def save(path: Path, kind: str) -> Path:
    """Write `ROWS` as a file of one kind, with a byte-order mark and CRLF where it is text."""
    path = path / f"prompts.{kind}"
    if kind == "parquet":
        columns: dict[str, list[Any]] = {
            "prompt": [row.text for row in ROWS],
            "id": ["c-1", None],
            "tags": [["animal", "slow"], None],
            "weight": [2.0, None],
            "other": [b"bytes", None],
        }
        pq.write_table(pa.table(columns), path)
    elif kind == "jsonl":
        lines = [
            json.dumps(
                {"prompt": ROWS[0].text, "id": "c-1", "tags": ["animal", "slow"], "weight": 2}
            ),
            "",
            json.dumps({"prompt": ROWS[1].text, "unknown": {"a": 1}}),
        ]
        path.write_bytes(codecs.BOM_UTF8 + "\r\n".join(lines).encode())
    else:
        text = (
            "id,prompt,tags,weight\r\n"
            'c-1,"a cat, asleep","animal, slow",2\r\n'
            ',"he said ""go""\nand left",,\r\n'
        )
        path.write_bytes(codecs.BOM_UTF8 + text.encode())
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_table_has_prompts_ids_tags_and_weights(kind: str, tmp_path: Path) -> None:
    path = save(tmp_path, kind)
    assert read_prompts(path) == ROWS
    with pytest.raises(
        PromptError, match=r"has no column 'promt', but .*did you mean prompts\.colu"
    ):
        read_prompts(path, "promt")


def test_the_column_may_have_another_name(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("caption\na cat\n")
    assert read_prompts(path, "caption") == [PromptRow("a cat")]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{oops\n', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", '"a"\n', "line 1 must be a JSON object, got"),
        (
            "a.jsonl",
            '{"prompt": "a"}\n\n{"text": "b"}\n',
            "line 3 has no column 'prompt', but text",
        ),
        ("a.jsonl", '{"prompt": 3}\n', "line 1: prompt must be text, got 3"),
        (
            "a.jsonl",
            '{"prompt": "a", "weight": -1}\n',
            "line 1: weight must be a number >= 0, got -1",
        ),
        ("a.jsonl", '{"prompt": "a", "weight": true}\n', "weight must be a number >= 0, got True"),
        ("a.jsonl", '{"prompt": "a", "weight": NaN}\n', "weight must be a number >= 0, got nan"),
        ("a.jsonl", '{"prompt": "a", "weight": 0}\n', "all weights are 0"),
        ("a.jsonl", '{"prompt": "a", "tags": 3}\n', "tags must be a list of texts, or text"),
        ("a.csv", "prompt,weight\na,much\n", "line 2: weight must be a number >= 0, got 'much'"),
        ("a.csv", 'prompt,id\n"a\nb",1\nc\n', "line 4 must have 2 fields, as the header has"),
        ("a.csv", "prompt\na,b\n", "line 2 must have 1 fields, as the header has"),
        ("a.csv", 'prompt\n"a\n', "is not CSV"),
        ("a.csv", "prompt,id\na,1\nb,1\n", "line 3: id '1' is that of line 2 too"),
        ("a.csv", "prompt\n", "holds no prompt"),
        ("a.csv", "", "holds no prompt"),
        ("a.jsonl", "\n", "holds no prompt"),
        ("a.parquet", "no table", "is not a Parquet file"),
        ("a.txt", '{"prompt": "a"}\n{"prompt": "b"}\n', "looks like JSON lines: call it a.jsonl"),
        ("a.txt", "PAR1xx", "is a Parquet file: call it a.parquet"),
        ("a.txt", "a\0b\0", "it holds zero bytes, as UTF-16 does; save the file as UTF-8"),
    ],
)
def test_what_cannot_be_used_is_named_by_line(
    name: str, content: str, expected: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(PromptError) as raised:
        read_prompts(tmp_path / name)
    assert expected in str(raised.value)
    assert name in str(raised.value)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl"])
@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-16", r"it begins as UTF-16 does; save .*iconv -f utf-16 -t utf-8"),
        ("utf-32", r"it begins as UTF-32 does"),
        ("latin1", r"line 2: byte \d+ is not UTF-8; save .*iconv -f latin1 -t utf-8"),
    ],
)
def test_other_encodings_are_recognised(
    encoding: str, expected: str, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes("prompt\nun café\n".encode(encoding))
    if name == "a.jsonl":
        (tmp_path / name).write_bytes('{"prompt": "x"}\n{"prompt": "café"}\n'.encode(encoding))
    with pytest.raises(PromptError, match=expected):
        read_prompts(tmp_path / name)


def test_empty_and_repeated_rows_are_skipped_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,id\na,1\n,2\na,3\nb,4\n")
    with caplog.at_level(logging.WARNING):
        assert [row.id for row in read_prompts(path)] == ["1", "4"]
    assert "skipped 1 blank and 1 duplicate lines, kept 2 prompts (line 3, line 4)" in caplog.text


def test_lines_that_end_with_returns_alone(tmp_path: Path) -> None:
    path = tmp_path / "old.txt"
    path.write_bytes(b"a cat\ra dog\r")
    assert [row.text for row in read_prompts(path)] == ["a cat", "a dog"]

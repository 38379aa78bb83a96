"""Text files in the encodings that people save them in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from videorl.data.text_files import problem_of, read_lines, read_text
from videorl.errors import TableError

TEXT = "ein Bär\nun café – noir\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_utf8_with_any_line_ends(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.replace("\n", end).encode(encoding))
    assert read_text(path) == TEXT.replace("\n", end)
    assert read_lines(path) == TEXT.splitlines()


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [
        ("utf-16", "a b.txt begins with the byte-order mark of UTF-16; save"),
        ("utf-32", "a b.txt begins with the byte-order mark of UTF-32; save"),
        ("utf-16le", "a b.txt holds zero bytes, as UTF-16LE text does; save"),
        ("utf-16be", "a b.txt holds zero bytes, as UTF-16BE text does; save"),
        ("cp1252", "a b.txt, line 1: byte 6 is not UTF-8 (0xe4, 'ä' in Latin-1); save"),
    ],
)
def test_another_encoding_is_recognised_and_the_command_given_converts_it(
    encoding: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "a b.txt"
    path.write_bytes(TEXT.encode(encoding))
    with pytest.raises(TableError) as raised:
        read_text(path)
    assert expected in str(raised.value)
    if encoding != "cp1252":
        command = str(raised.value).split("`")[1]
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        assert read_text(tmp_path / "utf8-a b.txt") == TEXT


def test_windows_text_is_told_from_latin_1(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("a dog\na “cat”".encode("cp1252"))
    expected = r"line 2: byte 3 is not UTF-8 \(0x93, '“' in Windows-1252\); .*iconv -f cp1252"
    with pytest.raises(TableError, match=expected):
        read_text(path)


def test_a_character_that_is_broken_costs_its_line_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    cut_off = "ein Bär\n".encode() + "🐻".encode()[:2] + b" cut off\na cat"
    halves = "ein Bär\nhalf \ud83d an emoji\na cat".encode("utf-8", "surrogatepass")
    for content, said in (
        (cut_off, r"'\udcf0\udc9f cut off' is not valid UTF-8: byte 0xf0"),
        (halves, r"'half \ud83d an emoji' is not valid Unicode: half of a surrogate pair"),
    ):
        path.write_bytes(content)
        assert [problem_of(line) for line in read_lines(path)] == ["", said, ""]

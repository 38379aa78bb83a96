"""Text files as people have them, decoded strictly: what is not UTF-8 is named, with a way out."""

from __future__ import annotations

import codecs
import re
import shlex
from pathlib import Path
from typing import NoReturn

from videorl.errors import TableError

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""UTF-32 first: its little-endian mark begins with that of UTF-16."""
_CONTROLS_OF_LATIN_1 = range(0x80, 0xA0)
"""Never used in text; Windows-1252 has curly quotes, dashes and the euro sign there."""
_BYTES = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as Python's `surrogateescape` keeps them in a text."""
_SURROGATES = re.compile("[\ud800-\udfff]")


def read_text(path: Path) -> str:
    """Return a UTF-8 file as text, without a byte-order mark, with the line ends that it has.

    Characters that are no valid Unicode (half an emoji, a letter that was cut in two) stay in the
    text, for `problem_of` to find: they cost their line, not the file. A file that has more such
    lines than lines of sound letters beyond ASCII is taken for one of another encoding.

    Raises:
        OSError: It cannot be read.
        TableError: It is not UTF-8; the first bad line and the likely encoding are named.
    """
    content = path.read_bytes()
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            _not_utf8(path, f" begins with the byte-order mark of {encoding}", encoding.lower())
    if (zero := content.find(b"\0")) >= 0:
        # Plain English in UTF-16 has a zero in every second byte: the first of two if big-endian.
        likely = "utf-16le" if zero % 2 else "utf-16be"
        _not_utf8(path, f" holds zero bytes, as {likely.upper()} text does", likely)
    content = content.removeprefix(codecs.BOM_UTF8)
    try:
        # Some programs write each half of a surrogate pair as if it were a character.
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        text = content.decode("utf-8", "surrogateescape")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    bad = [bool(_BYTES.search(line)) for line in lines]
    num_good = sum(
        not line.isascii() for line, is_bad in zip(lines, bad, strict=True) if not is_bad
    )
    if num_good < sum(bad):
        number = bad.index(True)
        _refuse_encoding(path, number + 1, lines[number])
    return text


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file; only line feeds and carriage returns end a line.

    Raises:
        OSError: It cannot be read.
        TableError: As `read_text`.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    if not text:
        return []
    # Files that were put together have byte-order marks in the middle.
    return [line.removeprefix("\ufeff") for line in text.removesuffix("\n").split("\n")]


def problem_of(text: str) -> str:
    """Return what is wrong with a text that is no valid Unicode; empty if nothing is."""
    found = _SURROGATES.search(text)
    if found is None:
        return ""
    what = found.group()
    if _BYTES.fullmatch(what):
        return f"'{printable(text):.60}' is not valid UTF-8: byte 0x{ord(what) & 0xFF:02x}"
    return f"'{printable(text):.60}' is not valid Unicode: half of a surrogate pair"


def printable(text: str) -> str:
    """Return a text that can be written anywhere: what is no valid Unicode is escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _refuse_encoding(path: Path, number: int, line: str) -> NoReturn:
    """Name a line that is not UTF-8, and what it seems to be instead."""
    raw = line.encode("utf-8", "surrogateescape")
    is_windows = any(byte in _CONTROLS_OF_LATIN_1 for byte in raw)
    name, likely = ("Windows-1252", "cp1252") if is_windows else ("Latin-1", "latin1")
    index = next(index for index, byte in enumerate(raw) if byte > 0x7F)
    bad = raw[index : index + 1]
    meant = bad.decode(likely, "replace")
    place = f"line {number}: byte {index + 1}"
    _not_utf8(path, f", {place} is not UTF-8 (0x{bad.hex()}, {meant!r} in {name})", likely)


def _not_utf8(path: Path, problem: str, likely: str) -> NoReturn:
    command = f"iconv -f {likely} -t utf-8 {shlex.quote(path.name)}"
    converted = shlex.quote(f"utf8-{path.name}")
    raise TableError(f"{path}{problem}; save it as UTF-8, e.g. `{command} > {converted}`")

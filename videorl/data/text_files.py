"""Text files as people have them, decoded strictly: what is not UTF-8 is named, with a way out."""

from __future__ import annotations

import codecs
import shlex
from pathlib import Path
from typing import NoReturn

from videorl.errors import PromptError

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""UTF-32 first: its little-endian mark begins with that of UTF-16."""
_CONTROLS_OF_LATIN_1 = range(0x80, 0xA0)
"""Never used in text; Windows-1252 has curly quotes, dashes and the euro sign there."""


def read_text(path: Path) -> str:
    """Return a UTF-8 file as text, without a byte-order mark, its line ends all line feeds.

    Raises:
        OSError: It cannot be read.
        PromptError: It is not UTF-8; the first bad line and the likely encoding are named.
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
    content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        before, bad = content[: error.start], content[error.start : error.start + 1]
        start_of_line = before.rpartition(b"\n")[2]
        line = start_of_line + content[error.start :].partition(b"\n")[0]
        is_windows = any(byte in _CONTROLS_OF_LATIN_1 for byte in line)
        name, likely = ("Windows-1252", "cp1252") if is_windows else ("Latin-1", "latin1")
        number = before.count(b"\n") + 1
        place = f"line {number}: byte {len(start_of_line) + 1}"
        meant = bad.decode(likely, "replace")
        problem = f", {place} is not UTF-8 (0x{bad.hex()}, {meant!r} in {name})"
        _not_utf8(path, problem, likely)


def _not_utf8(path: Path, problem: str, likely: str) -> NoReturn:
    command = f"iconv -f {likely} -t utf-8 {shlex.quote(path.name)}"
    converted = shlex.quote(f"utf8-{path.name}")
    raise PromptError(f"{path}{problem}; save it as UTF-8, e.g. `{command} > {converted}`")

"""Whether a file ends before its container says so.

Decoders notice a missing packet in the middle, but silently fill up one that is cut, and show fewer
frames of a file whose end is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MP4_FIRST = frozenset({b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"})
_EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_UNKNOWN_RIFF = 2**32 - 1


def is_cut_off(path: Path) -> bool:
    """Return whether an mp4, mov, Matroska, WebM, AVI or GIF file ends before its last part does.

    Raises:
        OSError: The file cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(12)
        if header[4:8] in _MP4_FIRST:
            return _last_box_end(file, size) > size
        if header[:4] == _EBML:
            return _segment_end(file, size) > size
        if header[:4] == b"RIFF":
            riff = int.from_bytes(header[4:8], "little")
            return riff != _UNKNOWN_RIFF and riff + 8 > size + 1  # padding to even may be left out
        if header[:4] == b"GIF8":
            file.seek(max(size - 64, 0))
            return not file.read().rstrip(b"\0").endswith(b";")  # the trailer
    return False


def _last_box_end(file: BinaryIO, end: int) -> int:
    """Return where the last top-level box of an mp4 file ends (ISO/IEC 14496-12, 4.2)."""
    start = 0
    while start < end:
        file.seek(start)
        header = file.read(16)
        size = int.from_bytes(header[:4], "big")
        if size == 1:
            size = int.from_bytes(header[8:16], "big")
        if size == 0:  # the box ends with the file
            return end
        start += max(size, 8)
    return start


def _segment_end(file: BinaryIO, end: int) -> int:
    """Return where the segment of a Matroska file ends (RFC 8794, 5 and 6)."""
    start = 0
    while start < end:
        file.seek(start)
        header = file.read(12)
        id_length = 9 - header[0].bit_length()  # leading zeros of the first byte, plus one
        if len(header) <= id_length or id_length > 4:
            return end
        length = 9 - header[id_length].bit_length()
        field = header[id_length : id_length + length]
        if length > 8 or len(field) < length:
            return end
        unknown = (1 << 7 * length) - 1
        size = int.from_bytes(field, "big") & unknown
        if size == unknown:  # a live recording: its length was never written
            return end
        start += id_length + length + size
        if header[:id_length] == _SEGMENT:
            return start
    return start

"""From which packets a decoder may start and still show exactly the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av import Packet

# Unit types after which nothing refers to what came before: IDR pictures of H.264; BLA, IDR and CRA
# pictures of H.265 (H.264 has other key frames too, "recovery points", which promise less).
_RESTARTS = {"h264": frozenset({5}), "hevc": frozenset(range(16, 22))}
# Not VP8 and MPEG-4, whose decoders fill gaps of a damaged key frame from the frame before it.
_RESTART_AT_EVERY_KEY_FRAME = frozenset({"av1", "prores", "vp9"})


def can_start_at(packet: Packet, codec: str, extradata: bytes | None) -> bool:
    """Return whether decoding may begin with `packet`; False also where that is not known.

    Args:
        packet: Of a video stream.
        codec: FFmpeg's name of the format.
        extradata: The stream's header, which tells how units of H.264 and H.265 are separated.
    """
    if not packet.is_keyframe:
        return False
    if codec in _RESTART_AT_EVERY_KEY_FRAME:
        return True
    if (restarts := _RESTARTS.get(codec)) is None:
        return False
    types = _unit_types(bytes(packet), codec, extradata or b"")
    return any(kind in restarts for kind in types)


def _unit_types(data: bytes, codec: str, extradata: bytes) -> Iterator[int]:
    """Yield the types of a packet's units (ITU-T H.264 and H.265, 7.3.1)."""
    is_h264 = codec == "h264"
    for start in _unit_starts(data, extradata, 4 if is_h264 else 21):
        yield data[start] & 31 if is_h264 else data[start] >> 1 & 63


def _unit_starts(data: bytes, extradata: bytes, length_field: int) -> Iterator[int]:
    """Yield where units begin: after their length if the header says so, or after start codes."""
    start = 0
    if extradata[:1] == b"\x01" and len(extradata) > length_field:
        width = (extradata[length_field] & 3) + 1
        while start + width < len(data):
            yield start + width
            start += width + int.from_bytes(data[start : start + width], "big")
        return
    while 0 < (start := data.find(b"\0\0\1", start) + 3) < len(data):
        if start == 2:  # not found
            return
        yield start

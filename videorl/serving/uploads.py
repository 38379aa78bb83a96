"""Decode uploaded videos in a process without rights."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Lock

import numpy as np

from videorl.errors import VideoError
from videorl.serving.limits import MIB, ServingLimits
from videorl.serving.sandbox import landlock_version
from videorl.types import Video

logger = logging.getLogger(__name__)

_PATIENCE_S = 5.0
"""How long an answer may take beyond the time that decoding has."""
_CHUNK = 2**20


class UploadDecoder:
    """Decodes videos that nobody vouches for; calls may come from several threads."""

    def __init__(self, limits: ServingLimits) -> None:
        self._limits = limits
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        if not landlock_version():
            logger.warning(
                "this kernel has no Landlock: the process that decodes uploads can read what its "
                "user can, should a video take it over (Linux 5.13 and later have it)"
            )

    def decode(self, content: bytes) -> Video:
        """Return the frames of an uploaded file.

        Raises:
            VideoError: It is damaged, no video, or costs more than the limits allow.
        """
        video = os.memfd_create("upload")
        answer, other_end = os.pipe()
        try:
            with os.fdopen(os.dup(video), "wb") as file:
                file.write(content)
            self._send([video, other_end])
        finally:
            os.close(video)
            os.close(other_end)
        with os.fdopen(answer, "rb", buffering=0) as pipe:
            return _read(pipe.fileno(), self._limits)

    def close(self) -> None:
        """End the process; `decode` would start another."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            if self._process is not None:
                self._process.wait()
            self._channel = self._process = None

    def _send(self, files: list[int]) -> None:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            assert self._channel is not None
            socket.send_fds(self._channel, [b"v"], files)

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limits = [str(self._limits.decoded_mib), str(self._limits.decode_s)]
        package = Path(__file__).resolve().parents[2]
        program = "videorl.serving.sandbox"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program, str(theirs.fileno()), *limits],
                pass_fds=[theirs.fileno()],
                # Nothing of ours, tokens least of all, is in its environment.
                env={"PYTHONPATH": os.pathsep.join([str(package), *filter(None, sys.path)])},
                stdin=subprocess.DEVNULL,
            )
        self._channel = ours


def _read(pipe: int, limits: ServingLimits) -> Video:
    """Read the answer of the process, which is trusted as little as the video."""
    end = time.monotonic() + limits.decode_s + _PATIENCE_S
    most = int(limits.decoded_mib * MIB) + _CHUNK
    found = bytearray()
    while True:
        left = end - time.monotonic()
        if left <= 0 or not select.select([pipe], [], [], left)[0]:
            raise VideoError(f"the upload: given up after {limits.decode_s:g} s of decoding")
        if not (chunk := os.read(pipe, _CHUNK)):
            break
        found += chunk
        if len(found) > most:
            raise VideoError(f"the upload is larger than {limits.decoded_mib:g} MiB once decoded")
    header, _, pixels = bytes(found).partition(b"\n")
    try:
        read = json.loads(header)
        if "error" not in read:
            frames = np.frombuffer(pixels, np.uint8).reshape(read["shape"])
            return Video(frames, float(read["fps"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise VideoError(
            "the upload cannot be decoded: the process that tried ended without an answer, out of "
            f"memory or out of time ({limits.decode_s:g} s)"
        ) from None
    raise VideoError(str(read["error"])[:1000])

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

from videorl.errors import ResourceError, VideoError
from videorl.serving.limits import MIB, ServingLimits
from videorl.serving.sandbox import READY, landlock_version
from videorl.serving.system_calls import can_forbid
from videorl.types import Video

logger = logging.getLogger(__name__)

_PATIENCE_S = 5.0
"""How long an answer may take beyond the time that decoding has."""
_START_S = 120.0
"""How long it may take to import what decodes, on a machine that is busy with other things."""
_CHUNK = 2**20
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""A process with threads forks badly."""


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
        if not can_forbid():
            logger.warning(
                "no seccomp filter is known for this machine: the process that decodes uploads can "
                "open connections that Landlock does not know, should a video take it over"
            )

    def start(self) -> None:
        """Have a process ready, so that the first upload waits for none.

        Raises:
            ResourceError: It cannot decode a video of its own; the log has its reason.
        """
        with self._lock:
            self._started()

    def decode(self, content: bytes) -> Video:
        """Return the frames of an uploaded file.

        Raises:
            VideoError: It is damaged, no video, or costs more than the limits allow.
            ResourceError: No process can be had that decodes.
        """
        video = os.memfd_create("upload")
        answer, other_end = os.pipe()
        try:
            with os.fdopen(os.dup(video), "wb", buffering=0) as file:
                file.write(content)
            self._send([video, other_end])
        except BaseException:
            os.close(answer)
            raise
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
            try:
                socket.send_fds(self._started(), [b"v"], files)
            except ConnectionError:  # it ended just now
                self._end()
                socket.send_fds(self._started(), [b"v"], files)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None

    def _started(self) -> socket.socket:
        """Return the channel to the process, which is started if it is not there."""
        if self._process is not None and self._process.poll() is None and self._channel is not None:
            return self._channel
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        limits = [str(self._limits.decoded_mib), str(self._limits.decode_s)]
        package = Path(__file__).resolve().parents[2]
        program = "videorl.serving.sandbox"
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", program, str(theirs.fileno()), *limits],
                pass_fds=[theirs.fileno()],
                # Nothing of ours, tokens least of all, is in its environment.
                env={
                    "PYTHONPATH": os.pathsep.join([str(package), *filter(None, sys.path)]),
                    **_ONE_THREAD,
                },
                stdin=subprocess.DEVNULL,
            )
        self._channel = ours
        ours.settimeout(_START_S)
        try:
            said = ours.recv(len(READY))
        except OSError:
            said = b""
        if said != READY:
            self._end()
            raise ResourceError(
                "the process that decodes uploads did not start; its own words are in the log"
            )
        ours.settimeout(None)
        return ours


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

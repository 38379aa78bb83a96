"""A process that decodes videos of strangers, and may do nothing else. Linux only.

It is started as a program with one end of a socket, loads what decoding needs once, and is forked
for every video. The fork gives up its rights before it looks at the video: it can open no file and
no connection (Landlock), write no file, gain no privilege, and use no more than so much memory and
time. Where it was started by root, it goes on as nobody.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import socket
import sys
import tempfile
from pathlib import Path

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""Landlock's system calls, with the same numbers on every architecture."""
_NO_NEW_PRIVILEGES, _DUMPABLE = 38, 4
"""Of prctl."""
_NOBODY = 65534
_GRACE_S = 2
_MAX_FRAMES = 36_000
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
"""Version of Landlock -> all that it can forbid with files; the last since version 5."""


def landlock_version() -> int:
    """Return the kernel's version of Landlock; 0 = it has none."""
    return max(0, ctypes.CDLL(None).syscall(_CREATE_RULESET, None, 0, 1))


def give_up_rights(memory_bytes: int, seconds: int) -> None:
    """Leave this process nothing but its memory, its time, and what it has open.

    Args:
        memory_bytes: Address space.
        seconds: Of time, and of processor time.

    Raises:
        OSError: The system refuses.
    """
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc = ctypes.CDLL(None, use_errno=True)
    _checked(libc.prctl(_DUMPABLE, 1, 0, 0, 0))  # which setresuid undoes; opens /proc/self/fd
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    if version := landlock_version():
        files = _FILE_RIGHTS.get(version, 0xFFFF)
        network = 0b11 if version >= 4 else 0  # TCP: bind and connect
        scoped = 0b11 if version >= 6 else 0  # abstract sockets and signals
        rules = (ctypes.c_uint64 * 3)(files, network, scoped)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        ruleset = _checked(libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0))
        _checked(libc.syscall(_RESTRICT_SELF, ruleset, 0))
        os.close(ruleset)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _decode(video: int, answer: int, mib: float, seconds: float) -> None:
    """Write a line of JSON to `answer`, then the frames as they lie in memory."""
    from videorl.errors import VideoError
    from videorl.videos.limits import VideoLimits
    from videorl.videos.opening import open_frames

    path = Path(f"/proc/self/fd/{video}")
    with os.fdopen(answer, "wb") as out:
        try:
            opened = open_frames(path, VideoLimits(_MAX_FRAMES, mib, seconds))
            frames_FHW3 = opened.read(range(opened.timeline.num_frames))
        except (VideoError, MemoryError) as error:
            reason = str(error).replace(str(path), "the upload") or "it needs too much memory"
            out.write(json.dumps({"error": reason}).encode() + b"\n")
            return
        header = {"shape": frames_FHW3.shape, "fps": opened.timeline.fps}
        out.write(json.dumps(header).encode() + b"\n")
        out.write(frames_FHW3.data.cast("B"))


def main() -> None:
    """Serve until the other end of the socket is closed."""
    number, mib, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    channel = socket.socket(fileno=number)
    _warm_up()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks that end need nobody to wait for them
    while True:
        message, files, _, _ = socket.recv_fds(channel, 64, 2)
        if not message:
            return
        video, answer = files
        if os.fork() == 0:
            channel.close()
            code = 1
            try:
                # A decoder needs several times the frames; the libraries alone take gigabytes of
                # addresses, of which little is memory.
                give_up_rights(int((8 * mib + 4096) * 2**20), int(seconds) + _GRACE_S)
                _decode(video, answer, mib, seconds)
                code = 0
            finally:
                os._exit(code)
        os.close(video)
        os.close(answer)


def _warm_up() -> None:
    """Import all that decoding imports when it is first done, which a fork no longer could."""
    import numpy as np

    from videorl.data.video_io import read_video, write_mp4
    from videorl.types import Video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "video")
        write_mp4(path, Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0))
        read_video(path)


if __name__ == "__main__":
    main()

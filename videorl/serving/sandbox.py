"""A process that decodes videos of strangers, and may do nothing else. Linux only.

It is started as a program with one end of a socket, loads what decoding needs once, and is forked
for every video. The fork gives up its rights before it looks at the video: it can open no file
(Landlock) and no connection (seccomp), start nothing, write no file, gain no privilege, and use no
more than so much memory and time. Where it was started by root, it goes on as nobody. The program
ends every fork whose time is up, whatever that does about it.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import platform
import resource
import select
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from functools import cache
from pathlib import Path

from videorl.serving.system_calls import can_forbid, filter_of, forbid

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
"""Landlock's system calls, with the same numbers on every architecture."""
_NO_NEW_PRIVILEGES, _DUMPABLE, _DIE_WITH_PARENT = 38, 4, 1
"""Of prctl."""
_NOBODY = 65534
_GRACE_S = 2
_MAX_FRAMES = 36_000
READY = b"ready"
"""What the program says once a video of its own came through a fork without rights."""
_FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF}
"""Version of Landlock -> all that it can forbid with files; the last since version 5."""


_LIBC = ctypes.CDLL(None, use_errno=True)


@cache
def landlock_version() -> int:
    """Return the kernel's version of Landlock; 0 = it has none."""
    return max(0, _LIBC.syscall(_CREATE_RULESET, None, 0, 1))


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
    libc = _LIBC
    _checked(libc.prctl(_DUMPABLE, 1, 0, 0, 0))  # which setresuid undoes; opens /proc/self/fd
    _checked(libc.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0))
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
    if can_forbid():
        forbid()


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


class _Forks:
    """The forks that decode, each with its end."""

    def __init__(self, mib: float, seconds: float) -> None:
        self._mib, self._seconds = mib, seconds
        landlock_version()  # known here, it costs no fork anything; so does the filter
        if can_forbid():
            filter_of(platform.machine())
        self._ends: dict[int, float] = {}
        """Process, as a file descriptor that cannot come to mean another -> when it must end."""

    def start(self, video: int, answer: int, channel: socket.socket | None) -> None:
        """Let a fork decode, which gets both files; here they are closed."""
        if (child := os.fork()) == 0:
            self._be_fork(video, answer, channel)
        os.close(video)
        os.close(answer)
        self._ends[os.pidfd_open(child)] = time.monotonic() + self._seconds + _GRACE_S

    def wait(self, *others: socket.socket) -> bool:
        """Return once something is to be read from one of `others`, or all forks have ended.

        Forks that end meanwhile are buried, and those whose time is up are ended.
        """
        while others or self._ends:
            now = time.monotonic()
            left = max(0.0, min(self._ends.values()) - now) if self._ends else None
            ready = select.select([*others, *self._ends], [], [], left)[0]
            for process in [each for each in ready if isinstance(each, int)]:
                os.waitid(os.P_PIDFD, process, os.WEXITED)
                os.close(process)
                del self._ends[process]
            for process, end in self._ends.items():
                if end <= time.monotonic():
                    signal.pidfd_send_signal(process, signal.SIGKILL)
            if any(not isinstance(each, int) for each in ready):
                return True
        return False

    def end(self) -> None:
        """End all forks."""
        for process in self._ends:
            signal.pidfd_send_signal(process, signal.SIGKILL)

    def _be_fork(self, video: int, answer: int, channel: socket.socket | None) -> None:
        code = 1
        try:
            if channel is not None:
                channel.close()
                nothing = os.open(os.devnull, os.O_RDWR)
                for standard in range(3):  # not even a log is left to write to
                    os.dup2(nothing, standard)
                os.close(nothing)
            for process in self._ends:
                os.close(process)
            # A decoder needs several times the frames; the libraries alone take gigabytes of
            # addresses, of which little is memory.
            give_up_rights(int((8 * self._mib + 4096) * 2**20), int(self._seconds) + _GRACE_S)
            _decode(video, answer, self._mib, self._seconds)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)


def main() -> None:
    """Serve until the other end of the socket is closed."""
    number, mib, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    forks = _Forks(mib, seconds)
    gc.disable()  # it would touch, and so copy, all that a fork shares with this process
    with socket.socket(fileno=number) as channel:
        _try(forks)
        with suppress(ConnectionError):
            channel.send(READY)
            while forks.wait(channel):
                message, files, _, _ = socket.recv_fds(channel, 64, 2)
                if not message:
                    break
                video, answer = files
                forks.start(video, answer, channel)
    forks.end()


def _try(forks: _Forks) -> None:
    """Decode a video here, which imports what a fork no longer could, and in a fork.

    Raises:
        RuntimeError: The fork has no answer: it says why on the standard error.
    """
    import numpy as np

    from videorl.data.video_io import encode_mp4, read_video
    from videorl.types import Video

    video = os.memfd_create("upload")
    os.write(video, encode_mp4(Video(np.zeros((2, 16, 16, 3), np.uint8), 8.0)))
    read_video(Path(f"/proc/self/fd/{video}"))
    answer, other_end = os.pipe()
    forks.start(video, other_end, None)
    forks.wait()
    with os.fdopen(answer, "rb") as pipe:
        if b"shape" not in (said := pipe.readline()):
            raise RuntimeError(f"no video can be decoded without rights here {said.decode()}")


if __name__ == "__main__":
    main()

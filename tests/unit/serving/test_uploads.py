"""Uploads are decoded to what `read_video` gives, in a process that can do nothing else."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from videorl.data.video_io import encode_mp4, read_video
from videorl.errors import ResourceError, VideoError
from videorl.serving.limits import ServingLimits
from videorl.serving.sandbox import landlock_version
from videorl.serving.uploads import UploadDecoder
from videorl.types import Video

LIMITS = ServingLimits(decode_s=3, decoded_mib=1)
VIDEO = Video(np.arange(9 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(9, 32, 32, 3), 8)


@pytest.fixture(scope="module")
def decoder() -> Iterator[UploadDecoder]:
    decoder = UploadDecoder(LIMITS)
    yield decoder
    decoder.close()


def test_frames_are_those_of_the_file(decoder: UploadDecoder, tmp_path: Path) -> None:
    content = encode_mp4(VIDEO)
    (tmp_path / "video.mp4").write_bytes(content)
    expected = read_video(tmp_path / "video.mp4")
    for _ in range(2):
        found = decoder.decode(content)
        np.testing.assert_array_equal(found.frames, expected.frames)
        assert found.fps == expected.fps


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be decoded"),
        (b"x" * 5000, "no video of a kind that is read"),
        (encode_mp4(VIDEO)[:900], "ends within a part"),
        (encode_mp4(Video(np.zeros((200, 64, 64, 3), np.uint8), 8)), "at most 1 MiB"),
    ],
)
def test_what_is_no_video_or_too_large_is_refused_without_a_path(
    decoder: UploadDecoder, content: bytes, said: str
) -> None:
    with pytest.raises(VideoError, match=said) as error:
        decoder.decode(content)
    assert "/proc" not in str(error.value)


def test_a_process_that_cannot_start_is_no_fault_of_the_upload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ResourceError, match="did not start"):
        UploadDecoder(LIMITS).decode(encode_mp4(VIDEO))


def test_a_fork_that_does_not_end_is_ended(tmp_path: Path) -> None:
    program = """
import os, signal, sys, time
from videorl.serving import sandbox
def stuck(*_):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    time.sleep(60)
sandbox._decode, sandbox._GRACE_S = stuck, 0
forks = sandbox._Forks(1, 1)
forks.start(os.memfd_create("video"), os.pipe()[1], None)
forks.wait()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


def test_a_process_that_is_gone_is_replaced(decoder: UploadDecoder) -> None:
    decoder.decode(encode_mp4(VIDEO))
    process = decoder._process
    assert process is not None
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert decoder.decode(encode_mp4(VIDEO)).frames.shape == VIDEO.frames.shape


ATTEMPTS = {
    "read": "open('/etc/hostname').read()",
    "list": "os.listdir('/')",
    "write": "open('/tmp/written', 'w').write('x')",
    "connect": "socket.socket().connect(('127.0.0.1', PORT))",
    "udp": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', PORT))",
    "unix": "socket.socket(socket.AF_UNIX).connect(PLACE)",
    "pair": "socket.socketpair()",
    "fork": "os._exit(7) if os.fork() == 0 else None",
    "program": "os.execv('/bin/true', ['true'])",
    "memory file": "os.memfd_create('x')",
    "time": "signal.setitimer(signal.ITIMER_REAL, 0)",
    "memory": "bytearray(2**32)",
    "signal": "os.kill(os.getppid(), 0)",
}


@pytest.mark.skipif(landlock_version() < 6, reason="needs Landlock 6 (Linux 6.12)")
def test_it_has_no_rights(tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "unix"))
    unix.listen()
    program = """
import os, signal, socket, sys, threading
from videorl.serving.sandbox import give_up_rights
give_up_rights(2**31, 5)
for attempt in sys.argv[1:]:
    try:
        exec(attempt)
        print("done")
    except (OSError, MemoryError) as error:
        print(getattr(error, "errno", "") or type(error).__name__)
thread = threading.Thread(target=lambda: print(os.getuid()))
thread.start()
thread.join()
"""
    port = str(listening.getsockname()[1])
    places = {"PORT": port, "PLACE": repr(str(tmp_path / "unix"))}
    attempts = [*ATTEMPTS.values()]
    for word, place in places.items():
        attempts = [attempt.replace(word, place) for attempt in attempts]
    command = [sys.executable, "-c", program, *attempts]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    listening.close()
    unix.close()
    *found, user = done.stdout.split()
    denied = {str(errno.EACCES), str(errno.EPERM), "MemoryError"}
    assert set(found) <= denied, (dict(zip(ATTEMPTS, found, strict=False)), done.stderr)
    assert len(found) == len(ATTEMPTS), done.stderr
    assert os.getuid() or user == "65534"

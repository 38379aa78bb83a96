"""A folder of a store is fetched once for all processes of a machine."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TextIO

import pytest

from videorl.errors import CheckpointError, StoreLostError
from videorl.storage.copies import cache
from videorl.storage.place import Place, Stored
from videorl.storage.shared import fetch_shared, let_go

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import sys
from videorl.errors import CheckpointError
from videorl.storage.place import Place
from videorl.storage.shared import fetch_shared, let_go
fetched, download = [], Place.download
def counted(self, name, path):
    fetched.append(name)
    download(self, name, path)
Place.download = counted
copy = fetch_shared(Place(sys.argv[1], "location", CheckpointError), "step-000010")
print(len(fetched), (copy / "weights").read_text(), flush=True)
sys.stdin.readline()
let_go(copy)
print("gone", flush=True)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """A store with one folder."""
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "copies"))
    found = Place(f"file://{tmp_path}/store", "location", CheckpointError)
    write(found, "first")
    return found


def write(place: Place, text: str) -> None:
    place.write("step-000010/weights", text.encode())
    place.write("step-000010/state.json", b"{}" + b" " * len(text))


def another(place: Place) -> subprocess.Popen[str]:
    """Start a process that fetches the folder, and keeps it until it gets a line."""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", PROGRAM, place.uri]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=env)


def said(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdout
    return process.stdout.readline().split()


def copies() -> list[str]:
    return sorted(path.name for path in cache().rglob("weights"))


def test_processes_that_come_at_once_fetch_it_once_and_the_last_removes_it(place: Place) -> None:
    others = [another(place) for _ in range(3)]
    found = [said(other) for other in others]
    assert sorted(number for number, _ in found) == ["0", "0", "2"]
    assert {text for _, text in found} == {"first"}
    mine = fetch_shared(place, "step-000010")
    let_go(mine)
    for number, other in enumerate(others):
        assert copies() == ["weights"], f"{3 - number} still read it"
        other.communicate("\n", timeout=120)
    assert copies() == []


def test_what_a_killed_process_left_goes_with_the_next_and_a_new_version_is_another(
    place: Place,
) -> None:
    killed = another(place)
    assert said(killed) == ["2", "first"]
    killed.kill()
    killed.wait()
    assert copies() == ["weights"]
    write(place, "second")
    copy = fetch_shared(place, "step-000010")
    assert (copy / "weights").read_text() == "second"
    assert copies() == ["weights"]
    let_go(copy)


@pytest.mark.parametrize("tells_sizes", [True, False])
def test_a_fetch_that_was_cut_off_is_done_again(
    tells_sizes: bool, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    download, told = Place.download, Place.list

    def unknown(self: Place, folder: str = "") -> dict[str, Stored]:
        return {name: replace(found, size=0) for name, found in told(self, folder).items()}

    if not tells_sizes:
        monkeypatch.setattr(Place, "list", unknown)

    def cut(self: Place, name: str, path: Path) -> None:
        if name.endswith("weights"):
            raise CheckpointError("away")
        download(self, name, path)

    monkeypatch.setattr(Place, "download", cut)
    with pytest.raises(CheckpointError):
        fetch_shared(place, "step-000010")
    fetched: list[str] = []

    def counted(self: Place, name: str, path: Path) -> None:
        fetched.append(name)
        download(self, name, path)

    monkeypatch.setattr(Place, "download", counted)
    copy = fetch_shared(place, "step-000010")
    assert fetched == ["step-000010/weights"], "the other file is there"
    assert (copy / "weights").read_text() == "first"
    let_go(copy)


def test_a_full_disk_is_no_lost_store_and_keeps_nothing(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for it would not help."""
    place.write("step-000010/more", bytes(2**20))
    program = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))\n"
    program += "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + PROGRAM
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", program, place.uri]
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    *_, last = done.stderr.splitlines()
    assert "CheckpointError: a checkpoint cannot be copied to" in last and "File too large" in last
    assert "make room there, or set VIDEORL_COPIES" in last
    assert [path.name for path in cache().rglob("*") if path.is_file()] == [".lock"]


def test_locks_are_those_of_files_which_other_machines_see(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On NFS a folder has a lock on its machine alone, and none to write for an open reader."""
    flock = fcntl.flock

    def of_files(file: int | TextIO, kind: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            return  # as another machine's
        if kind & fcntl.LOCK_EX:
            os.write(descriptor, b"")  # EBADF of an open reader
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", of_files)
    reader = another(place)
    assert said(reader) == ["2", "first"]
    write(place, "second")
    let_go(fetch_shared(place, "step-000010"))
    assert copies() == ["weights"], "the other process reads the first"
    reader.communicate("\n", timeout=120)
    assert copies() == []
    left = [path.name for path in cache().rglob("*") if path.is_file()]
    assert left == [".lock"]


def test_without_locks_a_process_has_its_own_copy_and_removes_it(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(file: object, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    copy = fetch_shared(place, "step-000010")
    assert (copy / "weights").read_text() == "first"
    let_go(copy)
    assert list((tmp_path / "own").iterdir()) == []

    def away(self: Place, name: str, path: Path) -> None:
        raise StoreLostError("away")

    monkeypatch.setattr(Place, "download", away)
    with pytest.raises(StoreLostError):
        fetch_shared(place, "step-000010")
    assert list((tmp_path / "own").iterdir()) == [], "each new try would leave another one"

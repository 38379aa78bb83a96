"""A folder of a store is fetched once for all processes of a machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from videorl.errors import CheckpointError
from videorl.storage.copies import cache
from videorl.storage.place import Place
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


def test_a_fetch_that_was_cut_off_is_done_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    download = Place.download

    def cut(self: Place, name: str, path: Path) -> None:
        if name.endswith("weights"):
            raise CheckpointError("away")
        download(self, name, path)

    monkeypatch.setattr(Place, "download", cut)
    with pytest.raises(CheckpointError):
        fetch_shared(place, "step-000010")
    monkeypatch.setattr(Place, "download", download)
    copy = fetch_shared(place, "step-000010")
    assert (copy / "weights").read_text() == "first"
    let_go(copy)

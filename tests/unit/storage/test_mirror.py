"""What a run writes comes into its store, whatever the store does meanwhile."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.s3_server import Way
from videorl.errors import BusyError, StoreLostError
from videorl.storage.copies import copy_of
from videorl.storage.lock import FOLDER, hold_place
from videorl.storage.mirror import Mirror
from videorl.storage.place import Place
from videorl.storage.preparing import GENERATION, open_place, prepare


@contextmanager
def working(uri: str, patience_s: float = 60) -> Iterator[tuple[Path, Mirror, Place]]:
    """Hold a run in a store, as `videorl.run.stored` does."""
    place, root = open_place(uri), copy_of(uri, "working")
    root.mkdir(parents=True, exist_ok=True)
    with hold_place(place, root) as flag:
        mirror = Mirror(root, place, flag, prepare(root, place, flag), patience_s, interval_s=0.2)
        mirror.start()
        try:
            yield root, mirror, place
        finally:
            mirror.close()


def content(place: Place) -> dict[str, bytes]:
    """Return what the store holds of the run."""
    names = [name for name in place.list() if name != GENERATION and not name.startswith(FOLDER)]
    return {name: place.read(name) for name in names}


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_files_that_appear_grow_change_and_vanish(uri: str) -> None:
    with working(uri) as (root, mirror, place):
        write(root, "metrics.jsonl", "1\n")
        write(root, "archive/pairs/old.parquet", "a")
        write(root, "archive/.new.partial", "not whole yet")
        write(root, "checkpoints/step-000001/state.json", "{}")
        mirror.flush()
        assert content(place) == {"metrics.jsonl": b"1\n", "archive/pairs/old.parquet": b"a"}
        with (root / "metrics.jsonl").open("a") as file:
            file.write("2\n")
        (root / "archive/pairs/old.parquet").unlink()
        write(root, "archive/pairs/many.parquet", "ab")
        write(root, "config.yaml", "one")
        mirror.flush()
        write(root, "config.yaml", "two")
        mirror.flush()
        assert content(place) == {
            "metrics.jsonl": b"1\n2\n",
            "archive/pairs/many.parquet": b"ab",
            "config.yaml": b"two",
        }


def test_a_working_copy_that_is_removed_empties_no_store(uri: str) -> None:
    with working(uri, patience_s=1) as (root, mirror, place):
        write(root, "metrics.jsonl", "1\n")
        mirror.flush()
        shutil.rmtree(root)
        with pytest.raises(StoreLostError, match="was removed while the run works"):
            mirror.flush()
        assert content(place) == {"metrics.jsonl": b"1\n"}
        root.mkdir()


def test_a_store_that_is_away_is_waited_for_and_loses_nothing(
    way: Way, s3: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with working(s3) as (root, mirror, place):
        write(root, "metrics.jsonl", "1\n")
        mirror.flush()
        way.mode = "refuse"
        way.interrupt()
        began = time.monotonic()
        for step in range(3):
            write(root, f"archive/step-{step}", str(step))
        with (root / "metrics.jsonl").open("a") as file:
            file.write("2\n")
        while "cannot be written to for" not in caplog.text:  # noticed without being asked
            time.sleep(0.1)
            assert time.monotonic() - began < 60
        way.mode = "pass"
        mirror.flush()
        assert content(place) == {
            "metrics.jsonl": b"1\n2\n",
            **{f"archive/step-{step}": str(step).encode() for step in range(3)},
        }
    assert "answers again after" in caplog.text


def test_a_store_that_stays_away_ends_the_wait_and_the_next_start_brings_the_rest(
    way: Way, s3: str
) -> None:
    with working(s3, patience_s=2) as (root, mirror, _):
        write(root, "metrics.jsonl", "1\n")
        mirror.flush()
        way.mode = "refuse"
        way.interrupt()
        write(root, "metrics.jsonl", "1\n2\n")
        with pytest.raises(
            StoreLostError, match=r"is kept in .*first: start the same command"
        ) as e:
            mirror.flush()
        assert str(root) in str(e.value)
        way.mode = "pass"
    with working(s3) as (root, mirror, place):
        assert (root / "metrics.jsonl").read_text() == "1\n2\n"
        mirror.flush()
        assert content(place)["metrics.jsonl"] == b"1\n2\n"


def test_a_copy_that_another_machine_overtook_is_moved_aside_and_fetched_again(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with working(uri) as (root, mirror, _):
        write(root, "metrics.jsonl", "1\n")
        write(root, "archive/pairs/1", "first")
        mirror.flush()
    write(root, "metrics.jsonl", "1\n2\n")  # the machine stopped before this was stored
    here = os.environ["VIDEORL_COPIES"]
    monkeypatch.setenv("VIDEORL_COPIES", str(tmp_path / "other machine"))
    with working(uri) as (other, mirror, _):
        assert other != root
        assert (other / "metrics.jsonl").read_text() == "1\n"
        assert (other / "archive/pairs/1").read_text() == "first"
        write(other, "metrics.jsonl", "1\ntwo\n")
        mirror.flush()
    monkeypatch.setenv("VIDEORL_COPIES", here)
    with working(uri) as (root, _, _):
        assert (root / "metrics.jsonl").read_text() == "1\ntwo\n"
        assert (root / "archive/pairs/1").read_text() == "first"
    (aside,) = root.parent.glob("first.old-*")
    assert (aside / "metrics.jsonl").read_text() == "1\n2\n"
    assert "another machine has gone on with this run: 1 files" in caplog.text


def test_a_driver_that_was_taken_over_writes_nothing_more(uri: str, tmp_path: Path) -> None:
    with working(uri) as (root, mirror, place):
        mirror.flush()
        with hold_place(open_place(uri), tmp_path / "b", take_over=True):
            mirror._flag.beat_s = 0  # what it knew of its lock is old
            write(root, "metrics.jsonl", "1\n")
            with pytest.raises(BusyError):
                mirror.flush()
            assert content(place) == {}


def test_what_somebody_asks_through_the_store_reaches_the_working_copy(uri: str) -> None:
    with working(uri) as (root, mirror, place):
        place.write("scale.json", b'{"generator": 2}')
        mirror.flush()
        assert (root / "scale.json").read_text() == '{"generator": 2}'

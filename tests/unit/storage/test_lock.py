"""Of several drivers one goes on, also where no file lock reaches."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

import pytest

from videorl.errors import BusyError, StoreLostError
from videorl.storage.lock import FOLDER, hold_place
from videorl.storage.preparing import open_place

BEAT_S = 0.1


def test_a_second_driver_is_refused_and_the_first_goes_on(uri: str, tmp_path: Path) -> None:
    place = open_place(uri)
    with hold_place(place, tmp_path / "a", beat_s=BEAT_S) as flag:
        with (
            pytest.raises(
                BusyError, match=r"another driver is working in .*first \(process \d+ on"
            ),
            hold_place(open_place(uri), tmp_path / "b", lease_s=120, beat_s=BEAT_S),
        ):
            pass
        time.sleep(3 * BEAT_S)
        flag.check()
    with hold_place(open_place(uri), tmp_path / "b", lease_s=20):
        pass
    assert place.list(FOLDER) == {}


def test_a_silent_driver_is_told_taken_over_and_ends_when_it_lives_after_all(
    uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    place = open_place(uri)
    with hold_place(place, tmp_path / "a", beat_s=1000) as silent:
        began = time.monotonic()
        with hold_place(open_place(uri), tmp_path / "b", lease_s=1, beat_s=BEAT_S) as flag:
            assert time.monotonic() - began > 1
            silent.beat_s = 0  # what it knew is old
            with pytest.raises(BusyError, match=r"another driver is working|was taken from"):
                silent.check()
            silent.beat()
            flag.check()
            assert list(place.list(FOLDER)) == [flag.name]
    assert "waiting 1 s for a sign of life; --take-over does not wait" in caplog.text


def test_a_flag_that_is_put_up_again_after_it_was_taken_down_counts_for_nothing(
    uri: str, tmp_path: Path
) -> None:
    """Its driver looked for it a moment before that, and wrote a moment later."""
    with (
        hold_place(open_place(uri), tmp_path / "a", beat_s=1000) as silent,
        hold_place(open_place(uri), tmp_path / "b", take_over=True, beat_s=BEAT_S) as flag,
    ):
        silent.wave()
        silent.beat_s = 0
        flag.check()
        assert flag.others() == []
        with pytest.raises(BusyError):
            silent.check()


def test_a_driver_of_this_machine_that_died_holds_nobody_up(uri: str, tmp_path: Path) -> None:
    """Whoever holds the lock of the same working copy knows that it is dead."""
    dead = hold_place(open_place(uri), tmp_path / "a", beat_s=1000)
    dead.__enter__()
    began = time.monotonic()
    with hold_place(open_place(uri), tmp_path / "a", lease_s=1000):
        assert time.monotonic() - began < 500


def test_of_many_at_once_never_two_hold_it(uri: str, tmp_path: Path) -> None:
    inside, most, ended = set[int](), [0], list[str]()
    end = time.monotonic() + 120

    def drive(number: int) -> None:
        while "held" not in ended and time.monotonic() < end:  # all may find each other in the way
            attempt(number)

    def attempt(number: int) -> None:
        try:
            with hold_place(
                open_place(uri), tmp_path / str(number), lease_s=30, beat_s=BEAT_S
            ) as flag:
                inside.add(number)
                most.append(len(inside))
                try:
                    time.sleep(5 * BEAT_S)
                    flag.check()
                finally:
                    inside.remove(number)
                ended.append("held")
        except BusyError:
            ended.append("busy")
        except StoreLostError:  # under so many hands a store fails now and then
            ended.append("lost")

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "held" in ended
    assert max(most) == 1, "somebody got it, and never two"

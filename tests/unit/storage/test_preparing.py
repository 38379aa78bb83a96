"""A start that waits for its store looks, before it changes anything, whether it still may."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from videorl.errors import BusyError, StoreLostError
from videorl.storage.lock import Flag, hold_place
from videorl.storage.patience import patiently
from videorl.storage.place import Place
from videorl.storage.preparing import move_aside, open_place, prepare


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """A run that another driver will go on with."""
    found = f"file://{tmp_path}/store/first"
    for name in ("checkpoint.json", "metrics.jsonl"):
        open_place(found).write(name, b"of the run")
    return found


def contents(uri: str) -> dict[str, bytes]:
    place = open_place(uri)
    return {name: place.read(name) for name in place.list() if not name.startswith(".drivers/")}


@pytest.mark.parametrize(("act", "call"), [(move_aside, "delete"), (prepare, "write")])
def test_who_was_taken_over_while_it_waited_changes_nothing(
    act: Callable[..., object],
    call: str,
    uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place, real, away = open_place(uri, patience_s=120), getattr(Place, call), list[str]()
    with ExitStack() as other, hold_place(place, tmp_path / "a", beat_s=0.05) as flag:

        def late(self: Place, name: str, *content: bytes) -> None:
            if away or name.startswith(".drivers/"):
                return real(self, name, *content)
            away.append(name)
            other.enter_context(hold_place(open_place(uri), tmp_path / "b", take_over=True))
            end = time.monotonic() + 120
            while flag.lost is None and time.monotonic() < end:
                time.sleep(0.01)
            raise StoreLostError("away")

        def waiting(self: Place, *args: Any) -> None:
            patiently(partial(late, self, *args), self.patience_s, "it")

        monkeypatch.setattr(Place, call, waiting)
        (tmp_path / "a").mkdir()
        before = contents(uri)
        with pytest.raises(BusyError):
            act(*([tmp_path / "a"] if act is prepare else []), place, flag)
        assert away
        assert contents(uri) == before


def test_who_was_taken_over_before_it_began_does_not_begin(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second sign of life came late, when the other had taken its flag down."""
    wave, waved = Flag.wave, list[str]()
    with ExitStack() as other:

        def late(self: Flag) -> None:
            waved.append(self.name)
            if len(waved) == 2:
                monkeypatch.setattr(Flag, "wave", wave)
                other.enter_context(hold_place(open_place(uri), tmp_path / "b", take_over=True))
            wave(self)

        monkeypatch.setattr(Flag, "wave", late)
        with pytest.raises(BusyError), hold_place(open_place(uri), tmp_path / "a", beat_s=1000):
            pass
        assert len(waved) == 2
        assert len(open_place(uri).list(".drivers")) == 1

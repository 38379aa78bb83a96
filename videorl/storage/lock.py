"""One driver per run folder in an object store.

A driver raises a flag, an object of its own below `.drivers/`, and only then looks for others.
Stores show what was written to every listing that begins later (S3 since 2020, GCS, Azure, and the
servers that speak their protocols), so that of two drivers at least one sees the other: no two go
on, whatever their timing, without a conditional write, which not every store has. Who sees a flag
takes its own down and tries again, or refuses.

The holder keeps changing its flag. A flag that stands still for `LEASE_S` is taken down by whoever
wants the folder; no clocks are compared. A holder that was away for long looks for its flag before
it writes again, and ends if that is gone.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from videorl.errors import BusyError, StoreLostError, VideorlError
from videorl.storage.patience import patiently
from videorl.storage.place import Place

logger = logging.getLogger(__name__)

FOLDER = ".drivers"
BEAT_S = 10.0
LEASE_S = 180.0
"""How long the flag of another machine may stand still before it counts as left behind; longer than
a store may be away for its holder."""
_TOLD_S = 30.0
_TRIES = 8
_LOOK_S = 2.0


@dataclass
class Flag:
    """The flag of this driver, while it holds the folder."""

    place: Place
    me: dict[str, Any]
    """What others are told of its driver."""
    beat_s: float = BEAT_S
    name: str = field(default_factory=lambda: f"{FOLDER}/{uuid.uuid4().hex}.json")
    lost: BusyError | None = None
    """Why the folder is held no longer; None = it is."""
    took: list[str] = field(default_factory=list[str])
    """Flags that were taken down for this one. Their drivers, should they live, may have looked
    before that and put theirs up again after it: they find themselves in here."""
    _beats: Iterator[int] = field(default_factory=itertools.count)
    _seen: float = 0.0
    _one: threading.Lock = field(default_factory=threading.Lock)

    def wave(self) -> None:
        """Write the flag, with another content each time."""
        text = json.dumps({**self.me, "beat": next(self._beats), "took": self.took})
        self.place.write(self.name, text.encode())
        self._seen = time.monotonic()

    def take_down(self) -> None:
        """Remove the flag."""
        self.place.delete(self.name)

    def others(self) -> list[str]:
        """Return the names of other drivers' flags.

        Raises:
            BusyError: This one is not there.
        """
        return [name for name in _beside(self.place, self.name) if name not in self.took]

    def check(self) -> None:
        """See that the folder is still held, unless that was seen a moment ago.

        Raises:
            BusyError: Another driver took it over.
            StoreLostError: The store does not answer.
        """
        with self._one:
            if self.lost is None and time.monotonic() - self._seen < 2 * self.beat_s:
                return
            self._look()

    def change(self, do: Callable[[], object], patience_s: float) -> None:
        """Do what changes the folder if it is still held; again, while the store is away.

        Raises:
            BusyError: Another driver took it over, perhaps while this one waited.
            StoreLostError: The store does not answer for so long.
        """

        def held() -> None:
            self.check()
            do()

        patiently(held, patience_s, self.place.uri)

    def beat(self) -> None:
        """See that the folder is still held, and say so; an unreachable store is no answer."""
        with self._one, suppress(StoreLostError, BusyError):
            self._look()

    def _look(self) -> None:
        if self.lost is None:
            try:
                check_raised(self.place, self.name)
                self.wave()
            except BusyError as error:
                self.lost = error
                logger.error("%s; nothing more is stored there", error)
        if self.lost is not None:
            raise self.lost


def check_raised(place: Place, name: str) -> None:
    """See that a flag stands, and that nobody took the folder over from it.

    Raises:
        BusyError: Somebody did.
        StoreLostError: The store does not answer.
    """
    for other in _beside(place, name):  # others ask, and see this one, or took it over
        said = _read(place, other) or {}
        if name in said.get("took", ()):
            raise _busy(place, said)


def _beside(place: Place, name: str) -> list[str]:
    """Return the names of all flags but one.

    Raises:
        BusyError: That one is not there.
    """
    names = place.list(FOLDER)
    if name not in names:
        raise BusyError(f"the lock of {place.uri} was taken from this driver")
    return sorted(names.keys() - {name})


@contextmanager
def hold_place(
    place: Place,
    copy: Path,
    *,
    take_over: bool = False,
    lease_s: float = LEASE_S,
    beat_s: float = BEAT_S,
) -> Iterator[Flag]:
    """Be the only driver of a URI inside the block.

    Args:
        place: The run folder; its patience is for the beginning.
        copy: Its working copy on this machine, whose own lock the caller holds.
        take_over: Do not wait for signs of life of a driver on another machine.
        lease_s: How long a flag must stand still before it is taken down.
        beat_s: How often the flag changes; much less than `lease_s` of all others.

    Raises:
        BusyError: Another driver works in it.
        StoreLostError: The store does not answer.
    """
    new = partial(Flag, place, _driver(copy), beat_s)
    flag = _taken(new, take_over, lease_s)
    # A holder that waits for its store must not keep others from asking whether it still holds it.
    flag.place = place.with_patience(0)
    stop = threading.Event()

    def live() -> None:
        while not stop.wait(flag.beat_s):
            try:
                flag.beat()
            except Exception:
                logger.exception("the lock of %s: trying again", place.uri)

    thread = threading.Thread(target=live, name="store lock", daemon=True)
    thread.start()
    try:
        yield flag
    finally:
        stop.set()
        thread.join(timeout=flag.beat_s)
        with suppress(VideorlError):  # a flag that stays is known for a dead driver's
            flag.take_down()


def is_held_at(place: Place, within_s: float = LEASE_S) -> bool:
    """Tell whether a driver shows signs of life, by the store's times; for those who only look."""
    now = time.time()
    return any(now - found.mtime_ns / 1e9 < within_s for found in place.list(FOLDER).values())


def _taken(new: Callable[[], Flag], take_over: bool, lease_s: float) -> Flag:
    """Raise a flag and return it when it is the only one."""
    took, silent = list[str](), False
    for attempt in range(_TRIES):
        flag = new()
        place, flag.took = flag.place, took
        flag.wave()
        try:
            others = flag.others()
            for name in list(others):
                if take_over or _is_dead_here(_read(place, name), flag.me):
                    logger.warning("taking down the lock of %s", _who(_read(place, name)))
                    took.append(name)
                    others.remove(name)
            if not others:
                flag.wave()
                check_raised(place, flag.name)  # both may have waited for the store
                for name in took:
                    place.delete(name)
                if silent:  # who lives after all looks for its flag within this time
                    time.sleep(min(2 * flag.beat_s, lease_s))
                return flag
        except BaseException:
            with suppress(StoreLostError):
                replace(flag, place=place.with_patience(0)).take_down()
            raise
        flag.take_down()
        dead = [name for name in others if _stands_still(place, name, lease_s)]
        took, silent = took + dead, silent or bool(dead)
        time.sleep(random.uniform(0, 0.5 * (attempt + 1)))
    raise BusyError(f"other drivers want {new().place.uri} too: start the same command again")


def _stands_still(place: Place, name: str, lease_s: float) -> bool:
    """Watch a flag until it is down (False), or stood still for so long that nobody holds it.

    Raises:
        BusyError: It moves.
    """
    first = _read(place, name)
    if first is None:
        return False
    logger.warning(
        "%s is locked by %s: waiting %.0f s for a sign of life; --take-over does not wait, if you "
        "know that it is dead",
        place.uri, _who(first), lease_s,
    )  # fmt: skip
    begun = told = time.monotonic()
    while (waited := time.monotonic() - begun) < lease_s:
        time.sleep(min(_LOOK_S, lease_s / 8))
        now = _read(place, name)
        if now is None:
            return False
        if now != first:
            raise _busy(place, now)
        if time.monotonic() - told > _TOLD_S:
            told = time.monotonic()
            logger.warning("no sign of life of %s for %.0f s", _who(first), waited)
    logger.warning("taking over from %s, silent for %.0f s", _who(first), lease_s)
    return True


def _driver(copy: Path) -> dict[str, Any]:
    machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    host, pid = socket.gethostname(), os.getpid()
    return {"machine": machine, "host": host, "pid": pid, "copy": str(copy)}


def _is_dead_here(flag: dict[str, Any] | None, me: dict[str, Any]) -> bool:
    """Tell whether a flag is of a driver that held the working copy whose lock we now hold."""
    return flag is not None and all(flag.get(key) == me[key] for key in ("machine", "host", "copy"))


def _read(place: Place, name: str) -> dict[str, Any] | None:
    """Return what a flag says; None = it is down."""
    try:
        return dict(json.loads(place.read(name)))
    except ValueError:
        return {}
    except StoreLostError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def _who(flag: dict[str, Any] | None) -> str:
    flag = flag or {}
    return f"process {flag.get('pid')} on {flag.get('host')}"


def _busy(place: Place, flag: dict[str, Any] | None) -> BusyError:
    return BusyError(
        f"another driver is working in {place.uri} ({_who(flag)}); wait for it, or set another "
        "run_dir"
    )

"""Copies of stored runs for those who only look: fetched once, then what has changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from videorl.errors import RunFolderError, VideorlError
from videorl.storage.copies import OWN, OWN_FOLDERS, copy_of, read_note, write_note
from videorl.storage.lock import FOLDER, LEASE_S
from videorl.storage.place import Place, Stored
from videorl.storage.preparing import GENERATION
from videorl.storage.threads import each

logger = logging.getLogger(__name__)

MEDIA = frozenset({".mp4", ".gif", ".safetensors", ".pt", ".pth"})
"""Endings of what is large, and not looked at by commands that print numbers."""
_SHARE = 10
"""So many times as long as a look takes, it is not looked again."""


class ReadingCopy:
    """A copy of what is below a URI: a run, a folder of runs, or a part of a run.

    Args:
        place: The store.
        media: Whether to fetch videos and weights too.
    """

    def __init__(self, place: Place, *, media: bool) -> None:
        self._place, self._media = place, media
        self.root = copy_of(place.uri, "reading")
        self._one = threading.Lock()

    def refresh(self) -> None:
        """Fetch what is new or other, and remove what is gone.

        Raises:
            RunFolderError: There is nothing.
            StoreLostError: The store does not answer.
        """
        with self._one:
            stored = self._place.list()
            if not stored:
                raise RunFolderError(f"there is nothing at {self._place.uri}")
            note = read_note(self.root)
            known: dict[str, object] = dict(note.get("files", {}))
            wanted = {name: found for name, found in stored.items() if self._is_wanted(name)}
            for name in known.keys() - stored.keys():
                (self.root / name).unlink(missing_ok=True)
                del known[name]
            changed = [
                name
                for name, found in wanted.items()
                if known.get(name) != _noted(found) or not (self.root / name).exists()
            ]
            for name, is_there in zip(changed, each(self._fetch, changed), strict=True):
                if is_there:
                    known[name] = _noted(wanted[name])
            self.root.mkdir(parents=True, exist_ok=True)
            note = {"uri": self._place.uri, "files": known, "reading": True}
            write_note(self.root, note)
            self._note_drivers(stored)

    def _is_wanted(self, name: str) -> bool:
        *folders, last = PurePosixPath(name).parts
        if OWN_FOLDERS & set(folders) or last in OWN or last == GENERATION:
            return False
        return self._media or PurePosixPath(name).suffix not in MEDIA

    def _fetch(self, name: str) -> bool:
        """Download a file; False = it has gone meanwhile."""
        try:
            self._place.download(name, self.root / name)
        except VideorlError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return False
            raise
        return True

    def _note_drivers(self, stored: dict[str, Stored]) -> None:
        """Note of every run whether a driver shows signs of life, by the times of its flag."""
        now, latest = time.time(), dict[str, float]()
        for name, found in stored.items():
            folder, mark, _ = f"/{name}".partition(f"/{FOLDER}/")
            if mark:
                run = folder.strip("/")
                latest[run] = max(latest.get(run, 0.0), found.mtime_ns / 1e9)
        for config in self.root.rglob("config.yaml"):
            run = config.parent
            seen = latest.get(run.relative_to(self.root).as_posix().removeprefix("."), 0.0)
            note = read_note(run)
            held_until = seen + LEASE_S if now - seen < LEASE_S else 0.0
            write_note(run, {"uri": None, **note, "reading": True, "held_until": held_until})


def reading_copy(uri: str, *, media: bool) -> ReadingCopy:
    """Return an up-to-date copy of what is at a URI.

    Raises:
        ConfigError: Nobody knows such a URI.
        RunFolderError: There is nothing, or it may not be read.
        StoreLostError: The store does not answer.
    """
    copy = ReadingCopy(Place(uri, "the run", RunFolderError), media=media)
    copy.refresh()
    return copy


@contextmanager
def following(copy: ReadingCopy, interval_s: float) -> Iterator[Path]:
    """Keep a copy up to date inside the block, as far as the store answers."""
    stop = threading.Event()

    def follow() -> None:
        pause = interval_s
        while not stop.wait(pause):
            begun = time.monotonic()
            try:
                copy.refresh()
            except Exception as error:
                logger.warning("%s", error)
            # Large runs take long to list.
            pause = max(interval_s, _SHARE * (time.monotonic() - begun))

    thread = threading.Thread(target=follow, name="following", daemon=True)
    thread.start()
    try:
        yield copy.root
    finally:
        stop.set()
        thread.join(timeout=interval_s)


def send(root: Path, name: str) -> None:
    """Store a file of a copy: what somebody who looks asks the driver for."""
    if uri := read_note(root).get("uri"):
        place = Place(uri, "the run", RunFolderError)
        place.upload(root / name, name)


def held(root: Path) -> bool | None:
    """Tell whether a driver held a run when its copy was last fetched; None = it is no such copy.

    Times of the store are compared with this machine's.
    """
    note = read_note(root)
    return time.time() < note.get("held_until", 0.0) if note.get("reading") else None


def _noted(found: Stored) -> list[int]:
    return [found.size, found.mtime_ns]

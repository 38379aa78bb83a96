"""Brings what a run writes into its working copy to the store, in the background."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path
from typing import Any

from videorl.errors import BusyError, RunFolderError, StoreLostError
from videorl.storage.copies import NOTE, write_note
from videorl.storage.lock import Flag
from videorl.storage.place import Place, Stored
from videorl.storage.scanning import Signature, scan, signature
from videorl.storage.threads import each

logger = logging.getLogger(__name__)

INBOX = ("scale.json",)
"""Files that others write into the store for the driver to read."""
_INTERVAL_S = 5.0
_TOLD_S = 30.0
_LONGEST_PAUSE_S = 15.0
_NOTED_S = 30.0
_SAME_TIME_S = 1.1
"""Stores tell times in seconds: a file of equal length is not written twice within one."""
_SHARE = 20
"""So many times as long as a look takes, there is none: large runs have many files."""


class Mirror:
    """One way: files that are new or other are uploaded, then those that are gone are removed.

    Nothing that the store says changes the working copy, but for `INBOX`. While the store does not
    answer, the run goes on and everything waits here; `flush` waits for the store.

    Args:
        root: The working copy.
        place: Its store.
        flag: The lock; nothing is written without it.
        note: What the copy knows; changed and written here.
        patience_s: How long `flush` waits without progress.
        interval_s: Seconds between two looks at the working copy.
    """

    def __init__(
        self,
        root: Path,
        place: Place,
        flag: Flag,
        note: dict[str, Any],
        patience_s: float,
        interval_s: float = _INTERVAL_S,
    ) -> None:
        self._root, self._place, self._flag, self._note = root, place, flag, note
        self._patience_s, self._interval_s = patience_s, interval_s
        self._pause_s = interval_s
        self._known = {name: (size, at) for name, (size, at) in note.get("files", {}).items()}
        self._written: dict[str, float] = {}
        self._inbox: dict[str, Stored] = {}
        self._noted = 0.0
        self._moved = 0
        """Counts what was stored, as a sign of progress."""
        self._change = threading.Condition()
        self._asked = self._done = self._failures = 0
        self._stop = False
        self._error: Exception | None = None
        self._failing: float | None = None
        self._told = 0.0
        self._gave_up = False
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)

    def start(self) -> None:
        """Begin to store."""
        self._thread.start()

    def flush(self) -> None:
        """Return when all that is in the working copy now is in the store.

        Raises:
            StoreLostError: It is not, and for `patience_s` nothing more was stored. After that,
                later calls try once, until the store answers again.
            BusyError: Another driver took the run over.
        """
        with self._change:
            self._asked += 1
            mine, tries = self._asked, self._done_or_failed()
            self._change.notify_all()
            moved, since = self._moved, time.monotonic()
            while self._done < mine:
                if isinstance(self._error, BusyError):
                    raise self._error
                self._change.wait(0.2)
                now = time.monotonic()
                if self._moved != moved:
                    moved, since = self._moved, now
                failed_once = self._gave_up and self._done_or_failed() > tries + 1
                if now - since > self._patience_s or failed_once:
                    self._gave_up = True
                    raise self._lost(now - since)
            self._gave_up = False

    def close(self) -> None:
        """Stop; what is being uploaded is finished, unless it hangs."""
        with self._change:
            self._stop = True
            self._change.notify_all()
        self._thread.join(timeout=_TOLD_S)
        self._write_note()

    def changes(self) -> tuple[dict[str, Signature], list[str]]:
        """Return files to store, oldest change first, and names to remove from the store."""
        if not (self._root / NOTE).exists():
            raise RunFolderError(f"the working copy {self._root} was removed while the run works")
        found = scan(self._root)
        new = {name: sign for name, sign in found.items() if self._known.get(name) != sign}
        return new, [name for name in self._known if name not in found]

    def _done_or_failed(self) -> int:
        return self._done + self._failures

    def _work(self) -> None:
        pause = 0.5
        while True:
            with self._change:
                if self._stop:
                    return
                asked = self._asked
            try:
                self._store_changes()
            except Exception as error:  # whatever it is, the run goes on until it must wait
                with self._change:
                    self._error, self._failures = error, self._failures + 1
                    self._change.notify_all()
                if isinstance(error, BusyError):
                    return
                self._tell(error)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self._answered()
                pause = 0.5
                with self._change:
                    self._done, self._error = max(self._done, asked), None
                    self._change.notify_all()
            with self._change:
                if self._error is not None:
                    self._change.wait_for(lambda: self._stop, min(pause, self._interval_s * 3))
                else:
                    self._change.wait_for(
                        lambda: self._stop or self._asked > self._done, self._pause_s
                    )

    def _store_changes(self) -> None:
        self._flag.check()
        begun = time.monotonic()
        new, gone = self.changes()
        self._pause_s = max(self._interval_s, _SHARE * (time.monotonic() - begun))
        each(lambda name: self._upload(name, new[name]), new)
        for name in gone:
            self._place.delete(name)
            del self._known[name]
            self._moved += 1
        self._read_inbox()
        if (new or gone) and time.monotonic() - self._noted > _NOTED_S:
            self._write_note()

    def _upload(self, name: str, sign: Signature) -> None:
        before = self._known.get(name)
        if before and before[0] == sign[0]:
            time.sleep(max(0.0, self._written.get(name, 0) + _SAME_TIME_S - time.monotonic()))
        try:
            stored = self._place.upload(self._root / name, name)
        except FileNotFoundError:
            return  # the next look tells
        self._known[name] = signature(stored)
        self._written[name] = time.monotonic()
        self._moved += 1

    def _read_inbox(self) -> None:
        for name in INBOX:
            found = self._place.stat(name)
            if found is None or found == self._inbox.get(name):
                continue
            content = self._place.read(name)
            path = self._root / name
            if not path.exists() or path.read_bytes() != content:
                partial = path.with_name(f".{name}.partial")
                partial.write_bytes(content)
                partial.replace(path)
            self._known[name] = signature(path.stat())
            self._inbox[name] = found

    def _write_note(self) -> None:
        self._noted = time.monotonic()
        write_note(self._root, {**self._note, "files": dict(self._known)})

    def _tell(self, error: Exception) -> None:
        now = time.monotonic()
        self._failing = now if self._failing is None else self._failing
        if now - self._told > _TOLD_S:
            self._told = now
            logger.warning(
                "%s cannot be written to for %.0f s (%s); what the run writes waits in %s",
                self._place.uri, now - self._failing, error, self._root,
            )  # fmt: skip

    def _answered(self) -> None:
        if self._failing is not None:
            waited = time.monotonic() - self._failing
            logger.warning("%s answers again after %.0f s", self._place.uri, waited)
            self._failing, self._told = None, 0.0

    def _lost(self, waited: float) -> StoreLostError:
        error = StoreLostError(
            f"nothing could be stored in {self._place.uri} for {waited:.0f} s "
            f"({self._error or 'no answer'}); what the run wrote is kept in {self._root}: start "
            "the same command again on this machine"
        )
        error.__cause__ = self._error
        return error


_working: dict[Path, Mirror] = {}


def register(root: Path, mirror: Mirror | None) -> None:
    """Let `flush` know the mirror of a working copy, or that it has none any more."""
    if mirror is None:
        _working.pop(root, None)
    else:
        _working[root] = mirror


def flush(root: Path) -> None:
    """Return when what a run has written is in its store, if it is in one; see `Mirror.flush`."""
    if mirror := _working.get(root):
        mirror.flush()

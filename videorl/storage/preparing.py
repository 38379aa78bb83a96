"""A working copy that is as far as its store, before a run goes on in it."""

from __future__ import annotations

import logging
import shutil
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError
from videorl.files.superseded import old_name, set_aside
from videorl.storage.copies import NOTE, OWN, copy_of, read_note, write_note
from videorl.storage.lock import FOLDER, Flag
from videorl.storage.place import Place, below
from videorl.storage.scanning import is_stored, scan, signature
from videorl.storage.threads import each

logger = logging.getLogger(__name__)

GENERATION = ".generation"
"""In the store: a name of the driver that wrote there last. A copy that knows it is not behind."""


def open_place(uri: str, patience_s: float = 0.0) -> Place:
    """Return the place of a run, or of a folder of runs.

    Args:
        uri: Where it is.
        patience_s: See `Place`.

    Raises:
        ConfigError: Nobody knows such a URI.
    """
    return Place(uri, "run_dir", RunFolderError, patience_s)


def prepare(root: Path, place: Place, flag: Flag) -> dict[str, Any]:
    """Bring a working copy to where its store is, and return its note.

    A copy of the driver that wrote last may be ahead of the store: it stays as it is, and the
    mirror brings the rest. Any other is fetched again; what it had alone is moved aside first.

    Args:
        root: The working copy, whose lock the caller holds.
        place: The store.
        flag: The caller's, there.

    Raises:
        BusyError: Another driver took the run over meanwhile.
    """
    stored = {name: found for name, found in place.list().items() if is_stored(name)}
    there = place.read(GENERATION).decode() if stored.pop(GENERATION, None) else None
    note = read_note(root)
    if there is None or there not in note.get("generations", ()):
        note = {"uri": place.uri, "files": {}}
        _clear(root, read_note(root))
    known: dict[str, Any] = note["files"]
    _fetch(place, root, [name for name in stored if not (root / name).exists()], known)
    note["files"] = {name: sign for name, sign in known.items() if name in stored}
    mine = uuid.uuid4().hex
    # Whether the next line reaches the store or not, this copy is then known for its own.
    write_note(root, {**note, "generations": [there, mine]})
    now = place.with_patience(0)
    flag.change(lambda: now.write(GENERATION, mine.encode()), place.patience_s)
    note["generations"] = [mine]
    write_note(root, note)
    return note


def move_aside(place: Place, flag: Flag) -> str | None:
    """Copy all that a store holds of a run to a URI beside it, and remove it; None = it is empty.

    The note of its checkpoints goes first: what is left of a run that was cut off meanwhile is not
    taken for one to go on with.

    Args:
        place: The store.
        flag: The caller's, there.

    Raises:
        BusyError: Another driver took the run over meanwhile: the rest stays as it is.
    """
    names = [name for name in place.list() if not name.startswith(f"{FOLDER}/")]
    if not names:
        return None
    start, mark, query = place.uri.partition("?")
    parent, _, name = start.rstrip("/").rpartition("/")
    beside = open_place(f"{parent}/{old_name(name)}{mark}{query}", place.patience_s)
    each(lambda name: place.copy(name, beside), names)
    names.sort(key=lambda name: name != "checkpoint.json" and not name.endswith("/state.json"))
    now = place.with_patience(0)
    for name in names:
        flag.change(partial(now.delete, name), place.patience_s)
    return beside.uri


def forget_copies(uri: str, root: Path) -> None:
    """Move aside what this machine has of a run that begins anew in an empty store."""
    set_aside(root, OWN - {NOTE})
    kept = copy_of(below(uri, "checkpoints"), "working")
    if kept.is_dir():
        kept.rename(kept.with_name(old_name(kept.name)))


def _clear(root: Path, note: dict[str, Any]) -> None:
    """Empty a copy that another driver has left behind."""
    known = {name: tuple(sign) for name, sign in note.get("files", {}).items()}
    found = scan(root)
    if alone := [name for name in found if known.get(name) != found[name]]:
        aside = set_aside(root, OWN - {NOTE})
        logger.warning(
            "another machine has gone on with this run: %d files that this one had not stored are "
            "in %s, and all else is fetched",
            len(alone), aside,
        )  # fmt: skip
        return
    for path in root.iterdir():
        if path.name not in OWN:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _fetch(place: Place, root: Path, names: list[str], known: dict[str, Any]) -> None:
    """Download files, and note them as stored."""

    def fetch(name: str) -> None:
        place.download(name, root / name)
        known[name] = signature((root / name).stat())

    if names:
        logger.info("fetching %d files of %s into %s", len(names), place.uri, root)
    each(fetch, names)

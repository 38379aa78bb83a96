"""What files and folders hold, known by a hash: their names, times and places do not matter.

Every byte counts, since a retrained head of a few kilobytes may lie anywhere in a checkpoint of
many gigabytes. So that this costs little, the hash of a large file is kept in the user's cache
beside its size and times; it is read again only when one of these changes. The times include that
of the last change of status (ctime), which no program can set back.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from videorl.files import hub

logger = logging.getLogger(__name__)

_REMEMBERED_FROM = 2**20
"""Size in bytes of files whose hash is kept; smaller ones are read faster than looked up."""
_MENTIONED_FROM = 2**32
"""Size in bytes from which reading is announced, as it takes a while."""
_SETTLED_S = 2.0
"""A file may change again within one tick of its clock: so fresh a hash is not kept."""
_IS_NO_CONTENT = re.compile(r"\.|__pycache__$|.*\.(md|rst|png|jpe?g|gif|html|log|lock)$", re.I)
"""Names of files and folders that no model is loaded from."""


@dataclass(frozen=True)
class Content:
    """What a place holds."""

    digest: str
    """SHA-256 (hex); for a model of the Hugging Face hub, the commit."""
    size: str
    """How much it is, in words."""
    parts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name -> digest, where it consists of several files."""


def file_digest(path: Path, *, fresh: bool = False) -> str:
    """Return the SHA-256 (hex) of a file's bytes.

    Args:
        path: The file.
        fresh: Read it even if its size and times are those of a hash that is kept.

    Raises:
        OSError: It cannot be read.
    """
    found = path.stat()
    if found.st_size < _REMEMBERED_FROM:
        return _hash(path)
    stamp = f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"
    kept = _cache() / hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]
    if not fresh:
        with suppress(OSError, ValueError):
            digest, known = kept.read_text().split(" ", 1)
            if known == stamp:
                return digest
    if found.st_size >= _MENTIONED_FROM:
        logger.info("reading %s (%.1f GB) to know it by content", path, found.st_size / 1e9)
    digest = _hash(path)
    if time.time() - max(found.st_mtime, found.st_ctime) > _SETTLED_S:
        with suppress(OSError):  # without a cache it is read again next time
            kept.parent.mkdir(parents=True, exist_ok=True)
            partial = kept.with_name(f".{kept.name}.{os.getpid()}")
            partial.write_text(f"{digest} {stamp}")
            os.replace(partial, kept)
    return digest


def content_of(place: Path, *, fresh: bool = False) -> Content:
    """Return the content of a file, or of all files in a folder; see `content_of_files`."""
    if place.is_file():
        return Content(file_digest(place, fresh=fresh), bytes_in_words(place.stat().st_size))
    files = {path.relative_to(place).as_posix(): path for path in _files(place)}
    return content_of_files(files, fresh=fresh)


def content_of_files(files: Mapping[str, Path], *, fresh: bool = False) -> Content:
    """Return the content of files that belong together: their bytes, and what each is called.

    Args:
        files: What a file is called, wherever it lies -> the file.
        fresh: As for `file_digest`.

    Raises:
        OSError: One cannot be read.
    """
    names = sorted(files)
    with ThreadPoolExecutor(4) as threads:  # hashing lets other threads run
        digests = list(threads.map(lambda name: file_digest(files[name], fresh=fresh), names))
    parts = dict(zip(names, digests, strict=True))
    size = bytes_in_words(sum(path.stat().st_size for path in files.values()))
    return Content(digest_of(parts.items()), f"{len(parts)} files, {size}", parts)


def content_of_checkpoint(
    path: str, shipped: Mapping[str, Path], *, fresh: bool = False
) -> Content | None:
    """Return the content of a checkpoint as recipes name it; None if it is not on this machine.

    A model of the Hugging Face hub is known by its commit: that in the id, or what was downloaded.

    Args:
        path: A key of `shipped`, a file or folder, or a hub id.
        shipped: Name -> folder of checkpoints that are part of this package.
        fresh: As for `file_digest`.
    """
    place = shipped.get(path, hub.local_path(path))
    if place.exists():
        return content_of(place, fresh=fresh)
    name = hub.parse(path)
    commit = None if name is None else name.revision if name.is_commit else hub.cached_commit(name)
    return None if commit is None else Content(commit, f"{path} of the Hugging Face hub")


def content_of_code(name: str, file: Path | None, *, fresh: bool = False) -> Content | None:
    """Return the content of a part of the user's own; None without a file.

    Args:
        name: `module:attribute`.
        file: Of the module; what it imports does not count.
        fresh: As for `file_digest`.
    """
    if file is None:
        return None
    found = content_of(file, fresh=fresh)
    return Content(digest_of([name, found.digest]), found.size, {file.name: found.digest})


def digest_of(items: Iterable[object]) -> str:
    """Return the SHA-256 (hex) of values that `repr` tells apart, in order."""
    found = hashlib.sha256()
    for item in items:
        found.update(repr(item).encode("utf-8", "surrogatepass") + b"\n")
    return found.hexdigest()


def differences(then: Content, now: Content) -> list[str]:
    """Return what differs between two contents, in words; empty if nothing does."""
    if then.digest == now.digest:
        return []
    found: list[str] = []
    for name in sorted({*then.parts, *now.parts}):
        if name not in now.parts:
            found.append(f"{name} is gone")
        elif name not in then.parts:
            found.append(f"{name} is new")
        elif then.parts[name] != now.parts[name]:
            found.append(f"{name} differs")
    return found or [f"{then.size} then, {now.size} now"]


def _files(folder: Path) -> Iterable[Path]:
    for entry in sorted(folder.iterdir()):
        if _IS_NO_CONTENT.match(entry.name):
            continue
        if entry.is_dir():
            if not folder.resolve().is_relative_to(entry.resolve()):  # a link that goes in a circle
                yield from _files(entry)
        elif entry.is_file():
            yield entry


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bytes_in_words(size: float) -> str:
    """Return a number of bytes in words, such as `2.84 GB`."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.4g} {unit}"
        size /= 1000
    return f"{size:.4g} GB"


def _cache() -> Path:
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(caches) / "videorl/digests"

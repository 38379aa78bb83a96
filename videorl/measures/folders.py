"""Folders of clips that are compared: what they are called, and which clips belong together."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_
from pathlib import Path

from videorl.data.clips import Clip, ClipSource, Key, find_clips
from videorl.errors import ConfigError, VideoError
from videorl.files.content import digest_of, file_digest
from videorl.videos.finding import SUFFIXES
from videorl.videos.frames import Frames
from videorl.videos.opening import open_frames

_SHOWN = 3


@dataclass(frozen=True)
class Folder:
    """A folder, a table or a run, whose clips are measured."""

    label: str
    place: Path
    source: ClipSource
    keys: tuple[Key, ...]
    """Of the clips that take part, in order."""

    def unit(self, key: Key) -> str:
        """Return what a clip is resampled and compared by: its prompt, or else its name."""
        return key[1].strip() or plain_name(key[0])

    def name(self, key: Key) -> Key:
        """Return what a clip is paired by: its name, and what `unit` returns."""
        return plain_name(key[0]), self.unit(key)

    def clips(self, keys: Collection[Key]) -> Iterator[Clip]:
        """Yield the clips with these keys."""
        return self.source.read(keys)


def plain_name(name: str) -> str:
    """Return the name of a clip without the suffix of a video file."""
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES else name


def open_folders(given: Sequence[str], prompts: Path | None = None) -> list[Folder]:
    """Find the clips of `PATH` or `NAME=PATH`.

    Raises:
        ConfigError: Two have one name.
        VideoError: See `find_clips`.
        PromptError: See `find_clips`.
    """
    folders: list[Folder] = []
    for label, text in zip(labels_of(given), given, strict=True):
        _, place = _named(text)
        source = find_clips(place, prompts if place.is_dir() else None)
        folders.append(Folder(label, place, source, source.keys))
    return folders


def labels_of(given: Sequence[str]) -> list[str]:
    """Return what `open_folders` calls these folders, which need not be there yet.

    Raises:
        ConfigError: Two have one name.
    """
    named = [_named(text) for text in given]
    again = Counter(label for label, _ in named)
    labels = [str(place) if again[label] > 1 else label for label, place in named]
    if twice := [label for label, count in Counter(labels).items() if count > 1]:
        raise ConfigError(f"{twice[0]} is given twice; name the folders: NAME=PATH")
    return labels


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if equals and name and path and not Path(text).exists():
        return name, Path(path).expanduser()  # a shell expands ~ at the start of a word only
    return Path(text).absolute().name or text, Path(text)


def match(folders: Sequence[Folder], *, shared: bool, has_prompts: bool) -> list[Folder]:
    """Return the folders with clips that all of them have: as many of each prompt, or name.

    Args:
        folders: What is compared; a reference is not among them.
        shared: Go on with the prompts that all have, and of each with as many clips as the folder
            with the fewest, instead of refusing others.
        has_prompts: A table of prompts was given, which names every clip.

    Raises:
        ConfigError: They have different clips, or none in common.
    """
    counts = [Counter(map(folder.unit, folder.keys)) for folder in folders]
    if not shared:
        for folder in folders:
            _check_listed(folder, has_prompts)
        for folder, count in zip(folders[1:], counts[1:], strict=True):
            _check_same(folders[0], counts[0], folder, count)
        return list(folders)
    fewest = reduce(and_, counts)  # and of counters is the smaller count
    names = set.intersection(*(set(map(folder.name, folder.keys)) for folder in folders))
    kept: list[Folder] = []
    for folder in folders:
        keys = _as_many(folder, fewest, names)
        if has_prompts:
            keys = [key for key in keys if key[1]]
        kept.append(replace(folder, keys=tuple(keys)))
    if not all(folder.keys for folder in kept):
        names = ", ".join(folder.label for folder in folders)
        raise ConfigError(f"{names} have no prompt (or, without prompts, no file name) in common")
    return kept


def _as_many(folder: Folder, counts: Counter[str], names: Collection[Key]) -> list[Key]:
    """Return so many clips of each unit: those with names that all have first, else in order."""
    left, chosen = Counter(counts), set[Key]()
    for key in sorted(folder.keys, key=lambda key: folder.name(key) not in names):
        if left[folder.unit(key)] > 0:
            left[folder.unit(key)] -= 1
            chosen.add(key)
    return [key for key in folder.keys if key in chosen]


def _check_listed(folder: Folder, has_prompts: bool) -> None:
    missing = [name for (name, _), content in _contents(folder) if not _is_there(content)]
    extra = [name for name, prompt in folder.keys if not prompt] if has_prompts else []
    refused = list(folder.source.refused.values())
    for what, names in (
        ("clips of the prompts are missing", missing),
        ("clips are not among the prompts", extra),
        ("rows or texts cannot be used", refused),
    ):
        if names:
            listed = "; ".join(names[:_SHOWN])
            raise ConfigError(
                f"{folder.label}: {len(names)} {what}: {listed}; mend it, or give --shared to go "
                "on with what all folders have"
            )


def _contents(folder: Folder) -> Iterator[tuple[Key, str | bytes]]:
    if folder.place.is_dir():  # contents of a table are bytes, perhaps, and not read for this
        for clip in folder.clips(folder.keys):
            yield clip.key, clip.content


def _is_there(content: str | bytes) -> bool:
    return isinstance(content, bytes) or os.path.exists(content)


def _check_same(first: Folder, mine: Counter[str], other: Folder, theirs: Counter[str]) -> None:
    if mine == theirs:
        return
    for a, b, lacking in ((first, other, mine - theirs), (other, first, theirs - mine)):
        if lacking:
            listed = "; ".join(repr(unit[:60]) for unit in list(lacking)[:_SHOWN])
            raise ConfigError(
                f"{a.label} has {sum(lacking.values())} clips that {b.label} has not, by prompt "
                f"(or by file name, without prompts): {listed}. Make them the same, or give "
                "--shared to go on with what all folders have"
            )


@contextmanager
def opened(clip: Clip) -> Iterator[Frames]:
    """Open a clip, also where it is the bytes of a file.

    Raises:
        VideoError: It cannot be read.
    """
    if isinstance(clip.content, str):
        yield open_frames(Path(clip.content))
        return
    with tempfile.NamedTemporaryFile(suffix=".video") as file:
        file.write(clip.content)
        file.flush()
        yield open_frames(Path(file.name))


def digest(clip: Clip) -> str:
    """Return a hash of what a clip shows, wherever it lies.

    Raises:
        VideoError: It cannot be read.
    """
    if isinstance(clip.content, bytes):
        return hashlib.sha256(clip.content).hexdigest()
    path = Path(clip.content)
    try:
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file())
            return digest_of((file.name, file_digest(file)) for file in files)
        return file_digest(path)
    except OSError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror or error}") from error

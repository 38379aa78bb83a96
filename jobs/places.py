"""Runs that commands are given: folders, or URIs, of which they get a copy."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs import command
from videorl.storage.place import is_uri

_AGAIN_S = 5.0


def place(text: str) -> Path | str:
    """Return an argument as a path, or as the URI that it is; for argparse's `type`."""
    return text if is_uri(text) else Path(text)


def run_dir(text: str) -> str:
    """Return where the run of a recipe goes: a URI, or a folder that outlives this process."""
    return text if is_uri(text) else str(command.lasting(text))


def here(given: Path | str, *, media: bool = True) -> Path:
    """Return a folder: the one that was given, or a copy of what is at a URI.

    Args:
        given: Of `place`.
        media: Whether videos and weights are needed.

    Raises:
        RunFolderError: There is nothing at the URI.
        StoreLostError: Its store does not answer.
    """
    if isinstance(given, Path):
        return given
    from videorl.storage.reading import reading_copy

    return reading_copy(given, media=media).root


@contextmanager
def followed(given: Path | str, *, media: bool, interval_s: float | None = None) -> Iterator[Path]:
    """Yield a folder as `here` does, and keep a copy up to date inside the block."""
    if isinstance(given, Path):
        yield given
        return
    from videorl.storage.reading import following, reading_copy

    logging.getLogger(__name__).info("fetching %s", given)
    with following(reading_copy(given, media=media), interval_s or _AGAIN_S) as root:
        yield root


def add_take_over(parser: argparse.ArgumentParser) -> None:
    """Add `--take-over`, for a lock in a store that a dead driver left."""
    text = (
        "where run_dir is a URI: do not wait for a sign of life of the driver that locked it; "
        "only if you know that it is dead"
    )
    parser.add_argument("--take-over", action="store_true", help=text)

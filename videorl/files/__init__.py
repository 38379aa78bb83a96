"""Files that are replaced atomically, and locks that end with their process."""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from errno import EINVAL, ENOTSUP
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError


@contextmanager
def locked(path: Path, in_use: str) -> Generator[None]:
    """Hold the lock file `path` inside the block; the system frees it however the process ends.

    Raises:
        RunFolderError: Another process holds it; the message is `in_use`.
    """
    with path.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RunFolderError(in_use) from error
        yield


def write_text(path: Path, text: str) -> None:
    """Replace `path` atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path`, or leave it as it was and nothing beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_durably(path: Path, text: str, mode: int = 0o666) -> None:
    """Replace `path` atomically, on disk when this returns, also if the machine then stops.

    Args:
        path: Of the file.
        text: What it holds then.
        mode: Its permissions from its creation on, of which the umask takes some away.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)  # what a kill left may be readable by others
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Force to disk what a file holds, or which files a folder has; see `fsync(2)`.

    File systems that cannot do that for folders, as some of networks, are taken at their word.
    """
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (EINVAL, ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(number)


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    """Replace `path` atomically with a CSV of `rows`."""
    table = io.StringIO()
    csv.writer(table).writerows(rows)
    write_text(path, table.getvalue())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace `path` atomically with `value` as JSON."""
    write_text(path, as_json(value))


def as_json(value: Mapping[str, Any]) -> str:
    """Return the text of a JSON file, as `write_json` writes it."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def read_yaml(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no YAML, or no text; the message names the file and the place.
    """
    import yaml

    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path.name} is no YAML: {error.problem}{place}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no YAML: {error}") from error


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no JSON, or no text; the message names the file and the place.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path.name} is no JSON: {error}") from error


def parse_yaml(text: str) -> Any:
    """Return what a YAML text holds; by libyaml, which is ten times as fast, where PyYAML has it.

    Raises:
        yaml.YAMLError: It is no YAML.
    """
    import yaml

    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))

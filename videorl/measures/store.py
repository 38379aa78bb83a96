"""What was measured of clips, kept so that a stop loses nothing.

`measured.jsonl` has a line per clip and measure: the hash of the clip, what was measured with which
settings, and the numbers. A line that a stop cut short is dropped.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from videorl.errors import ConfigError
from videorl.files import locked

FILE = "measured.jsonl"
Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class Store:
    """Numbers by clip and measure; made by `open_store`."""

    def __init__(self, path: Path, file: TextIO, found: dict[tuple[str, str], Values]) -> None:
        self._path, self._file, self._found = path, file, found

    def get(self, clip: str, measure: str) -> Values | None:
        """Return the numbers of a clip, by its hash; None if they were not measured."""
        return self._found.get((clip, measure))

    def add(self, clip: str, measure: str, values: Values) -> None:
        """Keep numbers; they are on their way to disk when this returns."""
        self._found[clip, measure] = values
        text = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
        line = {"clip": clip, "measure": measure, "type": str(values.dtype), "values": text}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


@contextmanager
def open_store(folder: Path) -> Iterator[Store]:
    """Open the store of a folder, alone.

    Raises:
        RunFolderError: Another process uses it.
        ConfigError: The file is damaged, and not at its end.
    """
    path = folder / FILE
    with locked(folder / ".lock", f"{folder} is used by another process"):
        found, good = _read(path)
        with path.open("a", encoding="utf-8") as file:
            file.truncate(good)
            yield Store(path, file, found)


def _read(path: Path) -> tuple[dict[tuple[str, str], Values], int]:
    """Return what the whole lines hold, and how many bytes they are."""
    found: dict[tuple[str, str], Values] = {}
    good = 0
    if not path.exists():
        return found, good
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break
            try:
                clip, measure, values = _parsed(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigError(
                    f"{path}, line {number}, is damaged ({error}); remove the file to measure anew"
                ) from error
            found[clip, measure] = values
            good += len(line)
    return found, good


def _parsed(row: Any) -> tuple[str, str, Values]:
    kind = {"float32": np.float32, "float64": np.float64}[row["type"]]
    values = np.frombuffer(base64.b64decode(row["values"]), kind)
    return str(row["clip"]), str(row["measure"]), values

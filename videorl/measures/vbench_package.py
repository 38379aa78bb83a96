"""VBench's dimensions on networks that only the `vbench` package has, in an environment of its own.

The package pins versions that do not go together with ours, and needs torchvision. So each
dimension runs in a process of another Python (`vbench_worker.py`), which stays and answers a clip
at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from videorl.errors import CheckpointError, VideoError
from videorl.files.content import content_of
from videorl.measures import vbench_worker
from videorl.measures.shapes import View
from videorl.measures.store import Values
from videorl.measures.vbench import DIMENSIONS, weights_folder

PYTHON = "VIDEORL_VBENCH_PYTHON"
"""Environment variable that names the Python of an environment with the `vbench` package."""
_DEATHS = 2
"""So many processes that die one after the other, and the dimension is given up."""
_LAST_WORDS = 300
"""Characters of what a process said before it died."""


class PackageDimension:
    """A dimension that a process of another Python measures.

    The process gets the frames as they are decoded here, so that clips of tables, folders of
    pictures and resampled clips are measured too; pixels of an mp4 file are those that the package
    decodes. A process that dies takes the number of one clip with it, and another is started; two
    that die one after the other, and the clips that are left have no number.
    """

    def __init__(self, name: str, python: Path, weights: Path, device: str = "") -> None:
        """Start the process, which loads the network.

        Args:
            name: Of `videorl.measures.vbench.IN_PACKAGE`.
            python: The Python of an environment with the package.
            weights: The network's file, as published.
            device: Such as `cuda`; empty = a GPU if there is one.

        Raises:
            CheckpointError: The weights are not there or cannot be loaded, or that Python cannot
                be run or lacks the package.
        """
        self.name = name
        if not weights.is_file():
            raise CheckpointError(
                f"{weights} is not there: the weights of VBench's {name}; put the file there, or "
                "set VBENCH_CACHE_DIR to the folder that the `vbench` package keeps its weights in"
            )
        worker = Path(vbench_worker.__file__)
        dimension = name.replace(" ", "_")
        # Isolated (-I): neither our folders nor our PYTHONPATH are searched for packages.
        self._command = [str(python), "-I", str(worker), dimension, str(weights), device]
        self._lock, self._deaths, self._given_up = Lock(), 0, ""
        self._process: _Process | None = None
        versions = self._started().versions
        version = versions.get("vbench", "of unknown version")
        others = [f"{name} {versions[name]}" for name in versions if name != "vbench"]
        self.computed_by = f"vbench {version} in an environment of its own ({', '.join(others)})"
        networks = f"vbench {version}, pyiqa {versions.get('pyiqa', '')}"
        self.settings = f"{networks}, {content_of(weights).digest}"

    def of(self, view: View) -> Values:
        """See `videorl.measures.measuring.Measure.of`."""
        with self._lock, tempfile.TemporaryDirectory() as folder:
            if self._given_up:
                raise VideoError(self._given_up)
            file = _written(view, Path(folder) / "frames.npy")
            answer = self._answer({"frames": str(file), "fps": view.fps})
        if "error" in answer:
            raise VideoError(str(answer["error"]))
        return np.array([float(answer["value"])])

    def close(self) -> None:
        """End the process; `of` would start another."""
        with self._lock:
            if self._process is not None:
                self._process.end()
                self._process = None

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            answer = self._started().ask(request)
        except (_DiedError, CheckpointError) as error:
            self._process = None
            self._deaths += 1
            if self._deaths >= _DEATHS:
                self._given_up = f"given up, as {self._deaths} processes in a row died: {error}"
            raise VideoError(str(error)) from error
        except BaseException:  # stopped: its answer must not be read as that on the next clip
            if self._process is not None:
                self._process.end()
            self._process = None
            raise
        self._deaths = 0
        return answer

    def _started(self) -> _Process:
        if self._process is None:
            self._process = _Process(self._command)
        return self._process


class _DiedError(Exception):
    """A process ended without an answer."""


class _Process:
    """A process of another Python that is ready to measure."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it and wait until it is ready; a network may take minutes to load.

        Raises:
            CheckpointError: It cannot be started, or says why it is not ready.
        """
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the finalizer
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                text=True,
                start_new_session=True,  # Ctrl-C is for us; it ends with its input
            )
        except OSError as error:
            self._said.close()
            raise CheckpointError(
                f"{command[0]} cannot be run ({error.strerror or error}); expected the Python of "
                "an environment with the `vbench` package"
            ) from error
        self.end = weakref.finalize(self, _end, self._process, self._said)
        try:
            first = self._read()
        except _DiedError as error:
            raise CheckpointError(f"{command[0]}: {error}") from error
        if "ready" not in first:
            self.end()
            raise CheckpointError(f"{command[0]} cannot measure it: {first.get('error', first)}")
        self.versions: Mapping[str, str] = first["ready"]

    def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what it answers.

        Raises:
            _DiedError: It does not.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        return self._read()

    def _read(self) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        if not (line := self._process.stdout.readline()):
            raise self._died()
        try:
            found = json.loads(line)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        self.end()
        raise _DiedError(f"the process of vbench said {line[:_LAST_WORDS]!r}, which is no answer")

    def _died(self) -> _DiedError:
        code = self._process.wait()  # it has closed its output, or no longer reads
        size = os.fstat(self._said.fileno()).st_size
        found = os.pread(self._said.fileno(), _LAST_WORDS, max(size - _LAST_WORDS, 0))
        words = " ".join(found.decode(errors="replace").split())
        self.end()
        how = "was killed (out of memory?)" if code == -signal.SIGKILL else f"ended with {code}"
        return _DiedError(f"the process of vbench {how}; its last words: {words or '-'}")


def _end(process: subprocess.Popen[str], said: Any) -> None:
    process.kill()
    for file in (process.stdin, process.stdout, said):
        with contextlib.suppress(OSError):  # what a process that died has not read is flushed
            if file is not None:
                file.close()
    process.wait()


def _written(view: View, path: Path) -> Path:
    """Write the frames of a clip, a few at a time."""
    file: Any = None
    start = 0
    for part_FHW3 in view.parts():
        if file is None:
            shape = (view.num_frames, *part_FHW3.shape[1:])
            file = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
        file[start : start + len(part_FHW3)] = part_FHW3
        start += len(part_FHW3)
    if file is None:
        raise VideoError("there are no frames")
    file.flush()
    return path


def load_package_dimension(name: str, python: str, device: str) -> PackageDimension:
    """Start a dimension on the weights in the package's own folder.

    Args:
        name: Of `videorl.measures.vbench.IN_PACKAGE`.
        python: The Python of an environment with the package, or the environment's folder.
        device: Such as `cuda`; empty = a GPU if there is one.

    Raises:
        CheckpointError: See `PackageDimension`.
    """
    place = Path(python).expanduser()
    if place.is_dir():
        place /= "bin/python"
    weights = weights_folder() / DIMENSIONS[name].weights_file
    return PackageDimension(name, place.absolute(), weights.absolute(), device)

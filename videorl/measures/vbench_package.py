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
from threading import Event, Lock, Timer
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
"""Bytes of what a process said before it died."""
_LOAD_S, _CLIP_S, _FRAME_S = 1800.0, 600.0, 120.0
"""A process hangs that takes longer to load, or for a clip, with so much more for each frame."""
_CLOSED = "not measured, as it was stopped"
_EXIT_S = 60.0
"""So long may a process take to end that has closed its output."""


class PackageDimension:
    """A dimension that a process of another Python measures.

    The process gets the frames as they are decoded here, so that clips of tables, folders of
    pictures and resampled clips are measured too; pixels of an mp4 file are those that the package
    decodes. A process that dies, or that hangs and is killed, takes the number of one clip with it,
    and another is started; two that do so one after the other, and the clips that are left have no
    number.
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
        self._is_closed = False
        self._process: _Process | None = None
        versions = self._started().versions
        version = versions.get("vbench", "of unknown version")
        others = [f"{name} {versions[name]}" for name in versions if name != "vbench"]
        self.computed_by = f"vbench {version} in an environment of its own ({', '.join(others)})"
        networks = f"vbench {version}, pyiqa {versions.get('pyiqa', '')}"
        self.settings = f"{networks}, {content_of(weights).digest}"

    def of(self, view: View) -> Values:
        """See `videorl.measures.measuring.Measure.of`; a clip at a time, whatever the threads."""
        with self._lock:
            if self._given_up or self._is_closed:
                raise VideoError(self._given_up or _CLOSED)
            try:
                with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                    file = _written(view, Path(folder) / "frames.npy")
                    limit_s = _CLIP_S + _FRAME_S * view.num_frames
                    answer = self._answer({"frames": str(file), "fps": view.fps}, limit_s)
            except OSError as error:
                raise VideoError(
                    f"its frames cannot be handed over in files ({error}); give TMPDIR a folder "
                    "with room for a clip's frames as bytes"
                ) from error
        if "error" in answer:
            raise VideoError(str(answer["error"]))
        return np.array([float(answer["value"])])

    def close(self) -> None:
        """End the process, also while a thread waits for it; no clip has a number afterwards."""
        self._is_closed = True
        if (process := self._process) is not None:
            process.kill()
        with self._lock:
            self._end_process()

    def _answer(self, request: Mapping[str, Any], limit_s: float) -> Mapping[str, Any]:
        try:
            answer = self._started().ask(request, limit_s)
        except (_DiedError, CheckpointError) as error:
            self._end_process()
            if self._is_closed:
                raise VideoError(_CLOSED) from error
            self._deaths += 1
            if self._deaths >= _DEATHS:
                self._given_up = f"given up, as {self._deaths} processes in a row died: {error}"
            raise VideoError(str(error)) from error
        except BaseException:  # stopped: its answer must not be read as that on the next clip
            self._end_process()
            raise
        self._deaths = 0
        return answer

    def _started(self) -> _Process:
        if self._process is None:
            self._process = _Process(self._command)
            if self._is_closed:  # `close` did not see it
                self._process.kill()
            try:
                self._process.load()
            except BaseException:
                self._end_process()
                raise
        return self._process

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.end()
            self._process = None


class _DiedError(Exception):
    """A process ended without an answer."""


class _Process:
    """A process of another Python, which measures once it is loaded."""

    def __init__(self, command: Sequence[str]) -> None:
        """Start it.

        Raises:
            CheckpointError: It cannot be started.
        """
        self._name = command[0]
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the finalizer
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                encoding="utf-8",
                errors="replace",  # of another program, which may say anything
                start_new_session=True,  # Ctrl-C is for us; it ends with its input
            )
        except OSError as error:
            self._said.close()
            raise CheckpointError(
                f"{command[0]} cannot be run ({error.strerror or error}); expected the Python of "
                "an environment with the `vbench` package"
            ) from error
        self.end = weakref.finalize(self, _end, self._process, self._said)
        self.versions: Mapping[str, str] = {}

    def load(self) -> None:
        """Wait until it is ready; a network may take minutes to load.

        Raises:
            CheckpointError: It says why it is not, or says nothing.
        """
        try:
            first = self._read(_LOAD_S)
        except _DiedError as error:
            raise CheckpointError(f"{self._name}: {error}") from error
        if "ready" not in first:
            raise CheckpointError(f"{self._name} cannot measure it: {first.get('error', first)}")
        self.versions = first["ready"]

    def ask(self, request: Mapping[str, Any], limit_s: float) -> Mapping[str, Any]:
        """Return what it answers.

        Raises:
            _DiedError: It does not, or not in time, or cannot answer again.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None
        answer = self._read(limit_s)
        if answer.get("is_broken"):
            raise _DiedError(str(answer["error"]))
        return answer

    def kill(self) -> None:
        """Kill it, so that whoever waits for its answer waits no longer; for any thread."""
        _kill(self._process)

    def _read(self, limit_s: float) -> Mapping[str, Any]:
        assert self._process.stdout is not None
        is_late = Event()

        def give_up() -> None:
            is_late.set()
            self.kill()

        timer = Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            line = self._process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()  # else it might kill the process while that measures the next clip
        if is_late.is_set():
            raise _DiedError(f"the process of vbench was killed: no answer in {limit_s:.0f} s")
        if not line:
            raise self._died()
        try:
            found = json.loads(line)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        raise _DiedError(f"the process of vbench said {line[:_LAST_WORDS]!r}, which is no answer")

    def _died(self) -> _DiedError:
        """Return why there is no answer of a process that no longer reads, or closed its output."""
        try:
            how = _ending(self._process.wait(_EXIT_S))
        except subprocess.TimeoutExpired:
            how = "closed its output without ending, and was killed"
        size = os.fstat(self._said.fileno()).st_size
        found = os.pread(self._said.fileno(), _LAST_WORDS, max(size - _LAST_WORDS, 0))
        words = " ".join(found.decode(errors="replace").split())
        return _DiedError(f"the process of vbench {how}; its last words: {words or '-'}")


def _ending(code: int) -> str:
    if code == -signal.SIGKILL:
        return "was killed (out of memory?)"
    return f"ended with {code}" if code >= 0 else f"was ended by signal {-code}"


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a process with all that it started: it leads a group of processes."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it is dead
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[str], said: Any) -> None:
    _kill(process)
    for file in (process.stdin, process.stdout, said):
        with contextlib.suppress(OSError):  # what a process that died has not read is flushed
            if file is not None:
                file.close()
    process.wait()


def _written(view: View, path: Path) -> Path:
    """Write the frames of a clip, a few at a time.

    Not through a memory map: where a disk is full, that ends the process without a word.

    Raises:
        OSError: There is no room.
    """
    with path.open("wb") as file:
        for number, part_FHW3 in enumerate(view.parts()):
            if number == 0:
                shape = (view.num_frames, *part_FHW3.shape[1:])
                header = {"descr": "|u1", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(np.ascontiguousarray(part_FHW3, np.uint8).data)
        if file.tell() == 0:
            raise VideoError("there are no frames")
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

"""A Python that runs the worker of `vbench` on small measures: every other part is the real one."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from videorl.measures import vbench_worker
from videorl.measures.vbench import DIMENSIONS, IN_PACKAGE

# Brightness of all frames, and their rate. Of a black clip it dies, of a white one it fails, of a
# light grey one it hangs, of a grey one its GPU breaks.
_PROGRAM = """
import importlib.util, os, signal, sys
sys.argv = sys.argv[2:]
spec = importlib.util.spec_from_file_location("worker", {worker!r})
worker = importlib.util.module_from_spec(spec)
spec.loader.exec_module(worker)
worker._usable = lambda device: device or "cpu"
worker.versions = lambda: {{"vbench": "0.1.5", "torch": "2.14.1"}}

def load(weights, device):
    with open(weights + ".starts", "a") as file:
        file.write(device + " ")
    if open(weights).read() == "damaged":
        raise ValueError("these are no weights")
    print("Loading the network")  # as the package does

    def measure(frames, fps):
        print("measuring", flush=True)
        if frames.max() < 20:
            print("no memory is left", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if frames.min() > 235:
            raise RuntimeError("too bright")
        if frames.min() > 195 and frames.max() < 225:
            with open(weights + ".pid", "w") as file:
                file.write(str(os.getpid()))
            os.rename(weights + ".pid", weights + ".hangs")
            while True:
                signal.pause()
        if frames.min() > 150 and frames.max() < 170:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return float(frames.mean()) / 255.0 + fps

    return measure

sys.exit(worker.main(dict.fromkeys({dimensions!r}, load)))
"""


def write_python(folder: Path) -> Path:
    """Write a program that takes the place of an environment's Python, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    program, python = folder / "program.py", folder / "python"
    dimensions = [name.replace(" ", "_") for name in IN_PACKAGE]
    program.write_text(_PROGRAM.format(worker=vbench_worker.__file__, dimensions=dimensions))
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I "{program}" "$@"\n')
    os.chmod(python, 0o755)
    return python


def write_weights(folder: Path, *names: str) -> None:
    """Write files of the published names."""
    for name in names or IN_PACKAGE:
        path = folder / DIMENSIONS[name].weights_file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("weights")


def starts(folder: Path, name: str) -> int:
    """Return how many processes have loaded a dimension."""
    path = folder / f"{DIMENSIONS[name].weights_file}.starts"
    return len(path.read_text().split(" ")) - 1 if path.exists() else 0

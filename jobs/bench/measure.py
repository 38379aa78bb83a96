"""`videorl measure` on a thousand clips: clips per second by threads, and memory as it goes.

    python -m jobs.bench.measure --clips 1000 --workers 1 2 4

Each number of threads measures the same clips anew, in a process of its own: flickering, moved
light and optical flow. Seconds of processor time tell what the work costs on a busy machine.
Memory is what is in use: what glibc keeps of it for later is given back at each mark.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from jobs import command

PROG = "python -m jobs.bench.measure"
_MARKS = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Print a row per number of threads, with its rate as a ratio to that of the first."""
    parser = command.new_parser(PROG, __doc__)
    command.add_option(parser, "--clips", 1000, "clips")
    command.add_option(parser, "--frames", 16, "frames of each")
    command.add_option(parser, "--side", 128, "pixels of a side")
    command.add_option(parser, "--workers", [1, 2, 4], "numbers of threads")
    text = "measure this folder, and print JSON: what the command starts by itself"
    parser.add_argument("--folder", type=Path, help=text)
    options = parser.parse_args(argv)
    if options.folder is not None:
        print(json.dumps(measured(options.folder, options.workers[0])))
        return 0
    with tempfile.TemporaryDirectory() as place:
        folder = write_clips(Path(place), options.clips, options.frames, options.side)
        print(f"{options.clips} clips of {options.frames} frames, {options.side} px")
        print("threads  clips/s  ratio  CPU s/clip  memory after a tenth  at the end, MiB")
        one_by_one = 0.0
        for workers in options.workers:
            words = [sys.executable, "-m", "jobs.bench.measure", "--folder", str(folder)]
            words += ["--workers", str(workers)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            one_by_one = one_by_one or found["rate"]
            print(
                f"{workers:7d}  {found['rate']:7.2f}  {found['rate'] / one_by_one:5.2f}  "
                f"{found['cpu']:10.3f}  "
                f"{found['memory'][0]:20.0f}  {found['memory'][-1]:15.0f}",
                flush=True,
            )
    return 0


def write_clips(folder: Path, count: int, frames: int, side: int) -> Path:
    """Write noise that drifts: nothing that a decoder could skip."""
    import numpy as np

    from videorl.data.video_io import write_mp4
    from videorl.types import Video

    for number in range(count):
        generator = np.random.default_rng(number)
        still = generator.integers(0, 255, (side, side, 3), dtype=np.uint8)
        pixels = np.stack([np.roll(still, step, axis=1) for step in range(frames)])
        write_mp4(folder / f"{number:05d}.mp4", Video(pixels, 8.0))
    return folder


def measured(folder: Path, workers: int) -> dict[str, object]:
    """Measure a folder; return clips per second, processor seconds per clip, and MiB at marks."""
    import psutil

    from videorl.measures.folders import open_folders
    from videorl.measures.measuring import Flickering, MotionMagnitude, MovedLight, measure_clips
    from videorl.measures.store import open_store

    folders = open_folders([f"clips={folder}"])
    count, process = len(folders[0].keys), psutil.Process()
    memory: list[float] = []
    every = max(count // _MARKS, 1)

    def done(number: int) -> None:
        if number > count and (number - count) % every == 0:
            ctypes.CDLL(None).malloc_trim(0)
            memory.append(process.memory_info().rss / 2**20)

    measures = {"clips": [Flickering(), MovedLight(), MotionMagnitude()]}
    with tempfile.TemporaryDirectory() as place, open_store(Path(place)) as store:
        started, cpu = time.perf_counter(), time.process_time()
        measure_clips(folders, measures, store, done, workers=workers)
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"rate": count / seconds, "cpu": cpu / count, "memory": memory}


if __name__ == "__main__":
    raise SystemExit(command.run(main))

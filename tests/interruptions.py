"""Commands that are interrupted at random, then started again: they must end as if they were not.

    python -m tests.interruptions --seconds 600 --seed 7

A process ends before the n-th time that it opens a file to write, renames or removes one in its
folder (as a power cut may), or after so many seconds (`kill -9`), or it is asked to stop. Then the
same work is started again, perhaps interrupted again, until it ends.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIED, STOPPED = 9, 130
_CHANGES = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate")
"""Audit events of a process that change what is on disk, `open` if it is to write."""
_PRELOADED = ["diffusers", "peft", "videorl.one_process", "videorl.data.score_table"]
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass(frozen=True)
class Interruption:
    """What ends a process; None = nothing of that kind."""

    operation: int | None = None
    """Which change of a file it does not live to make, counted from 1."""
    seconds: float | None = None
    question: int | None = None
    """Which time that the work asks whether to stop, counted from 1, it is told so."""


Work = Callable[[Path, Path, Callable[[], bool]], bool]
"""Takes a folder of inputs, a folder of its own, and whether to stop; returns whether it ended."""


def online(inputs: Path, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Sample, score, learn, evaluate and report, in one process."""
    return _run(inputs, folder, should_stop, "moving_shapes")


def from_prompts(inputs: Path, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Learn from prompts alone."""
    return _run(inputs, folder, should_stop, "moving_shapes_refl")


def from_videos(inputs: Path, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Encode stored pairs of videos, and learn from them."""
    return _run(inputs, folder, should_stop, "moving_shapes", str(inputs / "pairs"))


def _run(
    inputs: Path, folder: Path, should_stop: Callable[[], bool], name: str, archive: str = ""
) -> bool:
    from tests.small_runs import small_recipe
    from videorl import one_process
    from videorl.run.folder import open_run

    recipe = small_recipe(name, {"wan": inputs / "wan"}, folder / "run")
    recipe.num_steps, recipe.checkpoint.interval, recipe.reference.interval = 3, 1, 2
    recipe.offline.archive = archive
    recipe.evaluation.source, recipe.evaluation.num_prompts = "moving_shapes", 3
    recipe.evaluation.best_of, recipe.evaluation.samples, recipe.evaluation.num_videos = 2, 1, 1
    with open_run(recipe) as opened:
        return one_process.run(recipe, opened, should_stop)


def scores(inputs: Path, folder: Path, should_stop: Callable[[], bool]) -> bool:
    """Fill a table of scores, two videos at a time."""
    from videorl.config import RewardConfig
    from videorl.data import score_table
    from videorl.data.clips import find_clips
    from videorl.types import Score

    score_table._MAX_PARTS = 2
    source = find_clips(inputs / "pairs")
    reward = RewardConfig(name="video_reward", path=str(inputs / "wan"))
    with score_table.open_scores(folder / "scores.parquet", [reward]) as table:
        table.forget_changed(source)
        missing = list(source.read(set(source.keys) - table.scored))
        while missing and not should_stop():
            batch, missing = missing[:2], missing[2:]
            results = [
                Score({"length": float(len(clip.id))}, float(hash_of(clip.id))) for clip in batch
            ]
            table.add(batch, {"video_reward": results})
        table.merge(source.keys)
        return not missing


def hash_of(text: str) -> int:
    """Return a number that differs between texts, in every process the same."""
    return sum((place + 1) * ord(letter) for place, letter in enumerate(text))


WORKS: dict[str, Work] = {
    "scores": scores,
    "online": online,
    "from_prompts": from_prompts,
    "from_videos": from_videos,
}


def result_of(name: str, folder: Path) -> dict[str, Any]:
    """Return what a finished work must have made, without times and random names."""
    import pyarrow.parquet as pq

    if name == "scores":
        return {"table": pq.read_table(folder / "scores.parquet").to_pylist()}
    from videorl.audit import audit
    from videorl.data.archive import read_table
    from videorl.data.archive_tables import SCHEMAS
    from videorl.run.folder import RunFolder
    from videorl.run.sinks import read_metrics

    run = RunFolder(folder / "run")
    summary = json.loads(run.summary.read_text())
    found: dict[str, Any] = {
        "version": summary["policy_version"],
        "evaluation": summary["evaluation"],
        "metrics": [
            {key: value for key, value in row.items() if not key.startswith("time/")}
            for row in read_metrics(run.metrics)
        ],
        "held out": [(run.evaluation / f"{when}.json").read_text() for when in ("before", "after")],
        "videos": sorted(str(p.relative_to(run.root)) for p in run.evaluation.rglob("*.mp4")),
        "left": sorted(str(p.relative_to(run.root)) for p in run.root.rglob("*partial*")),
    }
    if name == "online":
        found["archive"] = {table: read_table(run.archive, table).to_pylist() for table in SCHEMAS}
        found["audit"] = audit(run).contradictions
    return found


def attempt(name: str, inputs: Path, folder: Path, interruption: Interruption) -> None:
    """Do the work in this process, which ends with an exit code."""
    import torch

    torch.set_num_threads(1)
    count = asked = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _CHANGES or not str(arguments[0]).startswith(str(folder)):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITES):
            return
        count += 1
        if count == interruption.operation:
            os._exit(DIED)

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return interruption.question is not None and asked >= interruption.question

    sys.addaudithook(hook)
    ended = WORKS[name](inputs, folder, should_stop)
    (folder.parent / f"{folder.name}.counted").write_text(json.dumps([count, asked]))
    sys.stdout.flush()
    os._exit(0 if ended else STOPPED)


class Interrupter:
    """Starts works in fresh processes that have their modules loaded.

    Args:
        inputs: What all works start from; see `make_inputs`.
        root: Where they work.
        seed: Of the moments of interruption.
    """

    def __init__(self, inputs: Path, root: Path, seed: int) -> None:
        self._inputs, self._root, self._random = inputs, root, random.Random(seed)
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(_PRELOADED)
        self._whole: dict[str, tuple[dict[str, Any], int, int, float]] = {}
        self._number = 0

    def check(self, name: str) -> list[Interruption]:
        """Interrupt a work once to three times, let it end, and compare; return what was done.

        Raises:
            AssertionError: It fails, or its result is another one.
        """
        whole, num_operations, num_questions, seconds = self._uninterrupted(name)
        folder, done = self._new_folder(name), []
        for _ in range(self._random.randint(1, 3)):
            kind = self._random.choice(("operation", "operation", "seconds", "question"))
            most = {"operation": num_operations, "seconds": seconds, "question": num_questions}
            moment = self._random.random() ** 0.7 * most[kind]
            done.append(Interruption(**{kind: moment if kind == "seconds" else 1 + int(moment)}))
            code = self._start(name, folder, done[-1])
            assert code in (0, DIED, -DIED, STOPPED), f"{name}: {done} ended with {code}"
        code = self._start(name, folder, Interruption())
        assert code == 0, f"{name}: after {done} the same work ended with {code}"
        found = result_of(name, folder)
        differing = [key for key in whole if found[key] != whole[key]]
        assert not differing, f"{name}: after {done} {differing} differ; see {folder}"
        shutil.rmtree(folder)
        return done

    def _uninterrupted(self, name: str) -> tuple[dict[str, Any], int, int, float]:
        if name not in self._whole:
            folder, started = self._new_folder(name), time.monotonic()
            assert self._start(name, folder, Interruption()) == 0
            seconds = time.monotonic() - started
            counted = folder.parent / f"{folder.name}.counted"
            self._whole[name] = (
                result_of(name, folder),
                *json.loads(counted.read_text()),
                seconds,
            )
        return self._whole[name]

    def _new_folder(self, name: str) -> Path:
        self._number += 1
        folder = self._root / f"{name}-{self._number}"
        folder.mkdir(parents=True)
        return folder

    def _start(self, name: str, folder: Path, interruption: Interruption) -> int | None:
        process: Any = self._processes.Process(
            target=attempt, args=(name, self._inputs, folder, interruption)
        )
        process.start()
        process.join(interruption.seconds)
        if process.is_alive() and interruption.seconds is not None:
            process.kill()
        process.join(300)
        assert process.exitcode is not None, f"{name} hangs after {interruption} in {folder}"
        return process.exitcode


def make_inputs(folder: Path) -> Path:
    """Write a tiny policy and labelled pairs of videos; return the folder."""
    from tests.tiny import TINY
    from tests.video_pairs import save_video_pairs

    TINY["wan"].save(folder / "wan")
    save_video_pairs(folder / "pairs")
    return folder


def rounds(names: list[str], seconds: float) -> Iterator[str]:
    """Yield names in turn, each at least once, for so long."""
    end = time.monotonic() + seconds
    yield from names
    while time.monotonic() < end:
        yield from names


def main() -> int:
    """Interrupt works for a while, and print what was done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=WORKS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        interrupter = Interrupter(make_inputs(Path(root) / "in"), Path(root) / "out", options.seed)
        for name in rounds(options.works, options.seconds):
            print(name, interrupter.check(name), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

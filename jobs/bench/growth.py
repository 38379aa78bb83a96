"""A pool that is resized while the run works: when throughput follows, as numbers and a plot."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from actors.pool.control import controlled
from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run, wait_for_workers
from jobs.bench.stand_ins import Pace
from videorl.loop import train
from videorl.report.plots import Line, line_plot
from videorl.run.background import repeating
from videorl.run.folder import RunFolder, open_run

_WINDOW_S = 4.0
"""Throughput is averaged over so many seconds."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The pool at one time."""

    at: float
    """Seconds since the first pool size was reached."""
    workers: int
    """Workers that are ready."""
    completed: int
    """Requests completed so far."""


@dataclass(frozen=True, slots=True)
class Resize:
    """One call of `videorl scale`, or the size at the start."""

    at: float
    """When the command was started, in seconds as in `Moment`."""
    workers: int


class Nothing:
    """A metric sink that keeps nothing."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Drop the metrics."""


def growth(sizes: Sequence[int], seconds: float, pace: Pace) -> dict[str, Any]:
    """Run on the connected cluster, with each pool size for some seconds; return what happened."""
    with tempfile.TemporaryDirectory() as root:
        recipe = stand_in_recipe(
            root,
            num_steps=10**9,
            prompts__per_round=4,
            rollouts__max_staleness=max(1, max(sizes) // 2),
            generators__min_workers=sizes[0],
            generators__max_workers=sizes[0],
        )
        moments, resizes = list[Moment](), list[Resize]()
        with (
            open_run(recipe) as folder,
            stand_in_run(recipe, folder, Nothing(), pace) as run,
            controlled(folder, run.pools),
        ):
            pool = run.generator.pool
            wait_for_workers(pool, sizes[0], 300.0)
            started = time.monotonic()

            def look() -> None:
                now = pool.stats()
                moments.append(Moment(time.monotonic() - started, now.workers, now.completed))

            # The first requests also wait for the encoder: `phases` counts from the first answer.
            with (
                repeating(look, 0.2, "pool watch"),
                _resized(folder, sizes, seconds, resizes) as is_over,
            ):
                train(recipe, run.parts, run.progress, is_over)
    return {
        "phases": phases(moments, resizes, 1 / pace.generate_s),
        "svg": plot(moments, resizes),
    }


@contextmanager
def _resized(
    folder: RunFolder, sizes: Sequence[int], seconds: float, resizes: list[Resize]
) -> Iterator[Callable[[], bool]]:
    """Resize with the real command on a thread; the value tells whether the last phase is over."""
    started = time.monotonic()
    resizes.append(Resize(0.0, sizes[0]))

    def type_commands() -> None:
        for size in sizes[1:]:
            time.sleep(seconds)
            resizes.append(Resize(time.monotonic() - started, size))
            command = [sys.executable, "-m", "jobs.scale", str(folder.root)]
            subprocess.run([*command, "--min", str(size), "--max", str(size)], check=True)
        time.sleep(seconds)

    thread = threading.Thread(target=type_commands, name="scale", daemon=True)
    thread.start()
    yield lambda: not thread.is_alive()


def phases(
    moments: Sequence[Moment], resizes: Sequence[Resize], rate: float
) -> list[dict[str, float]]:
    """Return, for each size, how long it took until it was reached, and its throughput from then.

    Args:
        moments: In order of time.
        resizes: In order of time, the first at the start.
        rate: Requests per second that one worker ideally finishes.
    """
    found: list[dict[str, float]] = []
    for resize, end in zip(resizes, _ends(moments, resizes), strict=True):
        inside = [moment for moment in moments if resize.at <= moment.at <= end]
        reached = [each for each in inside if each.workers == resize.workers and each.completed]
        seconds, requests = 0.0, 0
        if len(reached) > 1:
            seconds = reached[-1].at - reached[0].at
            requests = reached[-1].completed - reached[0].completed
        found.append(
            {
                "generators": resize.workers,
                "reached after, s": round(reached[0].at - resize.at, 1) if reached else -1.0,
                "requests/s from then": round(requests / seconds, 2) if seconds else 0.0,
                "ideal": resize.workers * rate,
            }
        )
    return found


def _ends(moments: Sequence[Moment], resizes: Sequence[Resize]) -> list[float]:
    """Return when each size was replaced by the next, and the end of the run."""
    return [*(resize.at for resize in resizes[1:]), moments[-1].at]


def plot(moments: Sequence[Moment], resizes: Sequence[Resize]) -> str:
    """Return an SVG: generators asked for, ready generators and throughput over time."""
    asked = [
        (at, float(resize.workers))
        for resize, end in zip(resizes, _ends(moments, resizes), strict=True)
        for at in (resize.at, end)
    ]
    rates: list[tuple[float, float]] = []
    for moment in moments:
        window = [near for near in moments if abs(near.at - moment.at) <= _WINDOW_S / 2]
        span = window[-1].at - window[0].at
        completed = window[-1].completed - window[0].completed
        rates.append((moment.at, completed / span if span else 0.0))
    return line_plot(
        "A pool that is resized while the run works",
        [
            Line("asked for by videorl scale", asked),
            Line("ready generators", [(each.at, float(each.workers)) for each in moments]),
            Line(f"requests/s over {_WINDOW_S:.0f} s", rates),
        ],
        x_name="seconds",
        y_name="generators, requests per second",
    )

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
from actors.pool.pool import ElasticPool
from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run, wait_for_workers
from jobs.bench.stand_ins import Pace
from videorl.loop import train
from videorl.report.charts import HEIGHT, WIDTH, chart
from videorl.run.folder import RunFolder, open_run

_WINDOW_S = 4.0
"""Throughput is that of so many seconds."""
_STYLE = """
text { font: 11px sans-serif; fill: #555 } .x { text-anchor: middle } .y { text-anchor: end }
.title { font-weight: bold; fill: #222 }
.grid { stroke: #ddd } .swap { stroke: #c60; stroke-dasharray: 4 3 }
.line { fill: none; stroke: #2563eb; stroke-width: 1.8 }
"""


@dataclass(frozen=True, slots=True)
class Moment:
    """The pool at one time."""

    at: float
    """Seconds since the run began."""
    workers: int
    """Ready ones."""
    completed: int
    """Requests so far."""


@dataclass(frozen=True, slots=True)
class Resize:
    """One call of `videorl scale`."""

    at: float
    """When it was typed, seconds since the run began."""
    workers: int


class Nothing:
    """A metric sink."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Forget it."""


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
            # The first requests also wait for the encoder; the clock starts with the first answer.
            with _watched(pool, moments), _resized(folder, sizes, seconds, resizes) as is_over:
                train(recipe, run.parts, run.progress, is_over)
    return {
        "phases": phases(moments, resizes, 1 / pace.generate_s),
        "svg": plot(moments, resizes),
    }


@contextmanager
def _watched(pool: ElasticPool, moments: list[Moment]) -> Iterator[None]:
    """Note the pool's state five times a second."""
    stop, started = threading.Event(), time.monotonic()

    def follow() -> None:
        while not stop.wait(0.2):
            now = pool.stats()
            moments.append(Moment(time.monotonic() - started, now.workers, now.completed))

    thread = threading.Thread(target=follow, name="growth", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


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
        resizes: In order of time, the first one at the start.
        rate: Requests per second that one worker ideally finishes.
    """
    found: list[dict[str, float]] = []
    ends = [one.at for one in resizes[1:]] + [moments[-1].at]
    for resize, end in zip(resizes, ends, strict=True):
        inside = [one for one in moments if resize.at <= one.at <= end]
        reached = [one for one in inside if one.workers == resize.workers and one.completed]
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


def plot(moments: Sequence[Moment], resizes: Sequence[Resize]) -> str:
    """Return an SVG: ready generators and throughput over time, the commands as dashed lines."""
    typed = [one.at for one in resizes[1:]]
    workers = [(one.at, float(one.workers)) for one in moments]
    rates: list[tuple[float, float | None]] = []
    for one in moments:
        window = [near for near in moments if abs(near.at - one.at) <= _WINDOW_S / 2]
        span = window[-1].at - window[0].at
        rates.append((one.at, (window[-1].completed - window[0].completed) / span if span else 0.0))
    drawn = [
        chart("Generators that are ready", workers, swaps=typed, is_smoothed=False),
        chart("Requests per second", rates, swaps=typed, is_smoothed=False),
    ]
    titles = ("Generators that are ready", f"Requests per second (over {_WINDOW_S:.0f} s)")
    parts = [
        f'<g transform="translate({10 + index * (WIDTH + 20)} 10)">'
        f'<text class="title" x="{WIDTH / 2}" y="10" text-anchor="middle">{title}</text>'
        f'<g transform="translate(0 14)">{_inner(figure)}</g></g>'
        for index, (title, figure) in enumerate(zip(titles, drawn, strict=True))
    ]
    width, height = 2 * WIDTH + 40, HEIGHT + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}"><style>{_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="#fff"/>{"".join(parts)}'
        f'<text class="x" x="{width / 2}" y="{height - 8}">seconds; dashed: videorl scale</text>'
        "</svg>\n"
    )


def _inner(figure: str) -> str:
    """Return what a chart draws, without the page around it."""
    start = figure.index(">", figure.index("<svg")) + 1
    return figure[start : figure.index("</svg>")]

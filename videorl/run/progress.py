"""How a run is going, for the person who watches it: a live display, or one line per step."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from math import isfinite
from statistics import median
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.console import RenderableType

BLOCKS = "▁▂▃▄▅▆▇█"
NOT_FINITE = "·"
SPARKLINE_WIDTH = 24
ETA_WINDOW = 10
"""Steps whose median time predicts the rest; the first step, which warms up, soon drops out."""
PACE_WINDOW = 200
"""Reports of some work whose mean rate predicts the rest: what follows may be slower."""
NUM_LINES = 20
"""Lines of a log that follow one piece of work."""


def sparkline(values: list[float], width: int = SPARKLINE_WIDTH) -> str:
    """Return the values as block characters, averaged down to at most `width` of them.

    A mean that is not finite is a dot.
    """
    size = min(width, len(values))
    cuts = [round(i * len(values) / size) for i in range(size + 1)] if values else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(cuts)]
    finite = [mean for mean in means if isfinite(mean)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(
        BLOCKS[round((mean - low) * scale)] if isfinite(mean) else NOT_FINITE for mean in means
    )


def duration(seconds: float) -> str:
    """Return a duration as people say it: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class ProgressSink:
    """Shows each step on a terminal as a live display, elsewhere as one plain line.

    Args:
        num_steps: Steps of the whole run.
        stream: Where to write; by default what standard error is at the first step.
    """

    def __init__(self, num_steps: int, stream: TextIO | None = None) -> None:
        self._num_steps = num_steps
        self._stream = stream
        self._rewards: list[float] = []
        self._step_s: list[float] = []
        self._last = time.perf_counter()
        self._live = None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show one step."""
        now = time.perf_counter()
        self._step_s.append(metrics.get("time/step_s", now - self._last))
        self._last = now
        if "reward/total" in metrics:
            self._rewards.append(metrics["reward/total"])
        stream = self._stream or sys.stderr
        if stream.isatty():
            self._update(stream, step, metrics)
        else:
            parts = [f"step {step + 1}/{self._num_steps}", *self._facts(metrics)]
            print("  ".join([*parts, f"ETA {self._eta(step)}"]), file=stream, flush=True)

    def truncate(self, step: int) -> None:
        """Say from where a resumed run goes on."""
        if step:
            print(f"resumed after step {step}/{self._num_steps}", file=self._stream or sys.stderr)

    def close(self) -> None:
        """Give the terminal back; the last state stays visible."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _facts(self, metrics: Mapping[str, float]) -> list[str]:
        facts = []
        if "reward/total" in metrics:
            change = self._rewards[-1] - self._rewards[0]
            facts.append(f"reward {self._rewards[-1]:+.3f} ({change:+.3f})")
            facts.append(sparkline(self._rewards))
        for label, name, form in (
            ("loss", "learn/loss", ".3f"),
            ("loss", "train/loss", ".3f"),
            ("margin", "learn/margin", "+.3f"),
            ("accuracy", "learn/accuracy", ".0%"),
            ("accuracy", "train/accuracy", ".0%"),
            ("held-out loss", "held_out/loss", ".3f"),
            ("stale", "staleness/steps", ".0f"),
        ):
            if name in metrics:
                facts.append(f"{label} {metrics[name]:{form}}")
        if dropped := sum(value for name, value in metrics.items() if "/dropped_" in name):
            facts.append(f"dropped {dropped:.0f}")
        return [*facts, self._seconds(metrics)]

    def _seconds(self, metrics: Mapping[str, float]) -> str:
        stages = {
            name.removeprefix("time/").removesuffix("_s"): value
            for name, value in metrics.items()
            if name.startswith("time/") and name != "time/step_s"
        }
        listed = ", ".join(f"{name} {value:.1f}" for name, value in stages.items())
        return f"{self._step_s[-1]:.1f} s" + (f" ({listed})" if listed else "")

    def _eta(self, step: int) -> str:
        return duration(median(self._step_s[-ETA_WINDOW:]) * (self._num_steps - step - 1))

    def _update(self, stream: TextIO, step: int, metrics: Mapping[str, float]) -> None:
        from rich.console import Console
        from rich.live import Live

        if self._live is None:
            # Refreshed by hand: a thread that redraws would garble what others print.
            self._live = Live(console=Console(file=stream), auto_refresh=False)
            self._live.start()
        self._live.update(self._render(step, metrics), refresh=True)
        if step + 1 == self._num_steps:
            self.close()

    def _render(self, step: int, metrics: Mapping[str, float]) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(f"step {step + 1}/{self._num_steps}", style="bold"),
            ProgressBar(total=self._num_steps, completed=step + 1, width=30),
            Text(f"ETA {self._eta(step)}", style="dim"),
        )
        facts = self._facts(metrics)
        shown = Text("  ").join(Text(fact) for fact in facts[:-1])
        return Group(head, shown, Text(facts[-1], style="dim"))


class _Pace:
    """How fast some work goes on, and when it is done.

    Args:
        total: Units of it.
        done: Those that were done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._total = total
        self._reports = deque([(time.perf_counter(), done)], maxlen=PACE_WINDOW)

    def __call__(self, done: int) -> str:
        """Return the rate of late, and the rest of the time at that rate."""
        self._reports.append((time.perf_counter(), done))
        (began, before), (now, _) = self._reports[0], self._reports[-1]
        seconds, made = now - began, done - before
        if made <= 0 or seconds <= 0:
            return ""
        rate = made / seconds
        shown = f"{rate:.3g}/s" if rate >= 1 else f"{1 / rate:.3g} s each"
        left = self._total - done
        return f"{shown}, ETA {duration(left / rate)}" if left > 0 else f"{shown}, all done"


class Reach(Protocol):
    """Shows how far some work is."""

    def __call__(self, done: int, value: float | None = None, /) -> None:
        """Show that `done` units are done, and the last value of what is watched, if any."""
        ...


@contextmanager
def progress(label: str, total: int, done: int = 0) -> Iterator[Reach]:
    """Yield what shows how much of some work is done, how fast it goes on, and how long it takes.

    On a terminal that is a bar, in a log a line per 5 %.

    Args:
        label: What is counted.
        total: Units of work.
        done: Those that were done before: they do not count for the rate.
    """
    pace = _Pace(total, done)
    if sys.stderr.isatty():
        yield from _bar(label, total, done, pace)
        return
    last = done

    def reach(done: int, value: float | None = None, /) -> None:
        nonlocal last
        at_pace = pace(done)
        if last * NUM_LINES // total < done * NUM_LINES // total:
            facts = filter(None, (f"{done}/{total}", _shown(value), at_pace))
            print(f"{label}: {'  '.join(facts)}", file=sys.stderr, flush=True)
        last = done

    print(f"{label}: {done}/{total}", file=sys.stderr, flush=True)
    yield reach


def _bar(label: str, total: int, done: int, pace: _Pace) -> Iterator[Reach]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn(label),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[value]}"),
        TextColumn("{task.fields[pace]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done, value="", pace="")
        yield lambda done, value=None: bar.update(
            task, completed=done, value=_shown(value), pace=pace(done)
        )


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"

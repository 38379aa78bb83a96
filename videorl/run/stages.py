"""What a run is doing, said as each stage begins, and where its time went."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from videorl.run.progress import duration


@dataclass(frozen=True)
class Stage:
    """A stage that is over."""

    name: str
    seconds: float
    count: int = 0
    """How many units of work it did; 0 = it has no units."""
    unit: str = ""
    """What one of them is called, such as `step`."""


class Stages:
    """The stages of one session of a run, one after the other; each is said on standard error.

    Args:
        clock: Gives seconds; the first stage begins when this is made.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._started = self._since = clock()
        self._name, self._count, self._unit = "", 0, ""
        self._over: list[Stage] = []

    def begin(self, name: str, count: int = 0, unit: str = "") -> None:
        """End the stage at hand, and say what follows.

        Args:
            name: What is done, such as `starting Ray`.
            count: Units of work that it will do, >= 0.
            unit: What one of them is called, in the singular.
        """
        now = self._clock()
        if self._name:
            self._over.append(Stage(self._name, now - self._since, self._count, self._unit))
        self._name, self._count, self._unit, self._since = name, count, unit, now
        work = f": {_counted(count, unit)}" if count else ""
        print(f"[{duration(now - self._started)}] {name}{work}", file=sys.stderr, flush=True)

    def over(self) -> list[dict[str, Any]]:
        """Return the stages that are over, as `summary.json` holds them."""
        return [asdict(stage) for stage in self._over]


def stage_rows(stages: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """Return name, duration, share of the whole, and time per unit of each, and of the whole."""
    total = sum(stage["seconds"] for stage in stages)
    rows = [
        (stage["name"], duration(stage["seconds"]), _share(stage["seconds"], total), _each(stage))
        for stage in stages
    ]
    return [*rows, ("altogether", duration(total), "", "")]


def stage_table(stages: Sequence[Mapping[str, Any]]) -> str:
    """Return a plain text table of where the time went."""
    rows = stage_rows(stages)
    width = max(len(name) for name, *_ in rows)
    return "\n".join(
        ["where the time went"]
        + [
            f"{name:<{width}}  {took:>10}  {share:>5}  {each}".rstrip()
            for name, took, share, each in rows
        ]
    )


def _share(seconds: float, total: float) -> str:
    return f"{seconds / total:.0%}" if total else ""


def _each(stage: Mapping[str, Any]) -> str:
    count, unit = stage["count"], stage["unit"]
    return f"{stage['seconds'] / count:.2g} s per {unit} ({count})" if count else ""


def _counted(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"

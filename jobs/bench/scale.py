"""What the machinery costs with many generators: the main loop on stand-ins that sleep."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from actors.cluster import connect
from jobs.bench.driver_probe import Probe, probe
from jobs.bench.stand_in_run import stand_in_recipe, stand_in_run, wait_for_workers
from jobs.bench.stand_ins import Pace, Work
from videorl.loop import train
from videorl.run.background import repeating
from videorl.run.folder import open_run

if TYPE_CHECKING:
    from actors.generator import RayGenerator
    from videorl.config import Recipe

_CANDIDATES = 2
_SPREAD = 0.1


@dataclass(frozen=True, slots=True)
class Load:
    """How much work one measurement gives to how many generators."""

    num_workers: int
    num_shared: int
    """Processes that the workers share; 0 = each has its own."""
    rate: float
    """Requests per second that all workers would finish together if nothing else took time."""
    least_s: float = 20.0
    """Measured seconds, at least; also enough for about one request per worker."""
    stretch: int = 1
    """How many times the measured rounds are repeated."""

    @property
    def per_round(self) -> int:
        """Prompts of a round: an eighth of the workers, so that rounds overlap."""
        return max(8, self.num_workers // 8)

    @property
    def staleness(self) -> int:
        """Rounds ahead, so that half as many requests as there are workers queue."""
        return math.ceil(1.5 * self.num_workers / self.per_round)

    @property
    def warm_up(self) -> int:
        """Rounds before the clock starts: about one request per worker."""
        return math.ceil(self.num_workers / self.per_round)

    @property
    def measured(self) -> int:
        """Rounds while the clock runs."""
        least = math.ceil(self.least_s * self.rate / self.per_round)
        return max(self.warm_up, least) * self.stretch

    def recipe(self, run_dir: str) -> Recipe:
        """Return a recipe with more rounds than are measured, so that requests always queue."""
        return stand_in_recipe(
            run_dir,
            num_steps=self.warm_up + self.measured + self.staleness + 1,
            prompts__per_round=self.per_round,
            prompts__candidates_per_prompt=_CANDIDATES,
            rollouts__max_staleness=self.staleness,
            generators__min_workers=self.num_workers,
            generators__max_workers=self.num_workers,
            rewards__0__num_workers=2,
            archive__videos="none",
        )

    def pace(self) -> Pace:
        """Return how long a request takes, for the rate."""
        return Pace(self.num_workers / self.rate, spread=_SPREAD, stagger=self.num_workers)


@dataclass
class Clock:
    """A metric sink that probes the driver after every step."""

    generator: RayGenerator | None = None
    probes: list[Probe] = field(default_factory=list[Probe])
    requests: list[int] = field(default_factory=list[int])
    """Finished so far, after each step."""
    slept_s: list[float] = field(default_factory=list[float])
    """Seconds that all of them slept."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note one step."""
        assert self.generator is not None
        done = self.generator.stages().get("sample_s")
        self.probes.append(probe())
        self.requests.append(done.count if done else 0)
        self.slept_s.append(done.seconds if done else 0.0)


def orchestration(load: Load, store_mib: int) -> dict[str, Any]:
    """Measure in a cluster of its own, with an object store of this size."""
    with connect("local", object_store_bytes=store_mib * 2**20):
        return measure(load)


def measure(load: Load) -> dict[str, Any]:
    """Run once on the connected cluster; return the numbers by name."""
    clock, probes = Clock(), list[Probe]()
    with tempfile.TemporaryDirectory() as folder:
        recipe, started = load.recipe(folder), time.monotonic()
        with (
            open_run(recipe) as run,
            stand_in_run(
                recipe, run, clock, load.pace(), work=Work(num_shared=load.num_shared)
            ) as parts,
        ):
            clock.generator = parts.generator
            wait_for_workers(parts.generator.pool, load.num_workers, 900.0)
            started_in_s = time.monotonic() - started
            with repeating(lambda: probes.append(probe()), 0.5, "driver probe"):
                last = load.warm_up + load.measured
                train(recipe, parts.parts, parts.progress, lambda: len(clock.probes) > last)
            stats = parts.generator.pool.stats()
    return {
        **numbers(load, clock, probes),
        "requests repeated": stats.retried,
        "started in, s": started_in_s,
    }


def numbers(load: Load, clock: Clock, probes: list[Probe]) -> dict[str, Any]:
    """Return the numbers of the measured rounds.

    Ideally every worker sleeps all the time, so the share of the ideal is the time slept over
    workers × wall time. Only the seconds asked for count as slept, not oversleeping.
    """
    first, last = load.warm_up, load.warm_up + load.measured
    before, after = clock.probes[first], clock.probes[last]
    wall_s = after.at - before.at
    candidates = (clock.requests[last] - clock.requests[first]) * _CANDIDATES
    slept_s = clock.slept_s[last] - clock.slept_s[first]
    cpu_s = after.cpu_s - before.cpu_s
    tenths = [_peak(probes, before.at + wall_s * n / 10, wall_s / 10) for n in range(10)]
    return {
        "workers": load.num_workers,
        "processes": load.num_shared or load.num_workers,
        "seconds per request": load.num_workers / load.rate,
        "wall, s": wall_s,
        "candidates": candidates,
        "candidates/s": candidates / wall_s,
        "share of the ideal throughput": slept_s / (load.num_workers * wall_s),
        "driver, µs of CPU per candidate": 1e6 * cpu_s / candidates,
        "driver, share of one core": cpu_s / wall_s,
        "driver memory, MiB, first and last": [_mib(before.memory_bytes), _mib(after.memory_bytes)],
        "object store, MiB, peak in each tenth": tenths,
    }


def _peak(probes: list[Probe], start: float, seconds: float) -> int:
    inside = [each.store_bytes for each in probes if start <= each.at < start + seconds]
    return _mib(max(inside, default=0))


def _mib(num_bytes: int) -> int:
    return round(num_bytes / 2**20)

"""A run on stand-ins under steady faults: does anything grow that should not?"""

from __future__ import annotations

import logging
import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ray._private.state

from jobs.bench.driver_probe import Probe, probe
from jobs.bench.stand_in_run import StandInRun, stand_in_recipe, stand_in_run
from jobs.bench.stand_ins import Pace, version_of
from videorl.loop import train
from videorl.run.background import repeating
from videorl.run.folder import open_run
from videorl.types import SampleRequest

logger = logging.getLogger(__name__)

_WARM_UP = 0.2
"""Share of the time that does not count: caches fill, and every kind of fault happens once."""
_TENTHS = 10


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much a quantity may grow over the whole measured time, and its unit."""

    unit: str
    scale: float
    """Divisor that turns a value into this unit."""
    growth: float
    """In this unit."""


TOLERANCES = {
    "memory_bytes": Tolerance("MiB", 2**20, 24),
    "num_fds": Tolerance("files", 1, 6),
    "num_threads": Tolerance("threads", 1, 6),
    "num_references": Tolerance("objects", 1, 24),
    "num_processes": Tolerance("processes", 1, 3),
    "num_actors": Tolerance("actors", 1, 2),
    "store_bytes": Tolerance("MiB", 2**20, 32),
}
"""By field of `Probe`, and `num_actors`. The pool's own size changes by two all the time."""


@dataclass
class Watch:
    """A metric sink that counts steps and losses."""

    steps: int = 0
    lost: int = 0
    longest_step_s: float = 0.0

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Note one step."""
        self.steps += 1
        self.longest_step_s = max(self.longest_step_s, metrics["time/step_s"])
        self.lost += int(metrics.get("groups/dropped_group_lost", 0))


@dataclass
class Faults:
    """Makes faults in a run, one kind after another, in an order given by a seed.

    Args:
        run: The run that suffers them.
        watch: Counts its steps, and so knows the newest version.
        seed: Decides the order and the victims.
    """

    run: StandInRun
    watch: Watch
    seed: int
    done: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        """Start with no fault planned."""
        self._random = random.Random(self.seed)
        self._coming: list[tuple[str, Callable[[], None]]] = []

    def next(self) -> None:
        """Make the next fault; one that fails, such as for want of a victim, is logged."""
        if not self._coming:
            self._coming = list(self._kinds().items())
            self._random.shuffle(self._coming)
        name, harm = self._coming.pop()
        try:
            harm()
            self.done[name] += 1
        except Exception:  # the state API itself may be late
            logger.exception("soak: fault %r could not be made", name)

    def _kinds(self) -> dict[str, Callable[[], None]]:
        pool = self.run.generator.pool
        return {
            "generator killed": lambda: self._signal("SleepingGenerator", signal.SIGKILL),
            "generator hangs": lambda: self._signal("SleepingGenerator", signal.SIGSTOP),
            "reward worker killed": lambda: self._signal("RewardWorker", signal.SIGKILL),
            "encoder killed": lambda: self._signal("Encoder", signal.SIGKILL),
            "learner's process killed": lambda: self._signal("SleepingRank", signal.SIGKILL),
            "archive writer killed": lambda: self._signal("ArchiveWriter", signal.SIGKILL),
            "pool grown": lambda: pool.resize(4, 4),
            "pool shrunk": lambda: pool.resize(2, 2),
            "request cancelled": self._cancel,
        }

    def _signal(self, class_name: str, number: signal.Signals) -> None:
        os.kill(self._random.choice(live_actors()[class_name]), number)

    def _cancel(self) -> None:
        prompt = self.run.parts.prompts[self._random.randrange(1000)]
        request = SampleRequest(0, prompt, (1, 2), version_of(self.watch.steps))

        def call(worker: Any) -> list[Any]:
            return worker.generate.options(num_returns=5).remote(request)

        future = self.run.generator.pool.submit(call)
        time.sleep(self._random.random())
        future.cancel()


@dataclass(frozen=True, slots=True)
class Sample:
    """The run at one moment of a soak."""

    probe: Probe
    num_actors: int
    """Live actors in the cluster."""

    def value(self, name: str) -> float:
        """Return a quantity of `TOLERANCES`."""
        return float(self.num_actors if name == "num_actors" else getattr(self.probe, name))


def soak(
    minutes: float, fault_every_s: float, sample_every_s: float, patience_s: float, seed: int
) -> dict[str, Any]:
    """Run on the connected cluster; return what happened and what grew.

    Args:
        minutes: How long to run.
        fault_every_s: Seconds between two faults.
        sample_every_s: Seconds between two samples of what may grow.
        patience_s: Seconds after which a worker that hangs is replaced.
        seed: Decides the order and the victims of the faults, and seeds the recipe.
    """
    with tempfile.TemporaryDirectory() as folder:
        recipe = stand_in_recipe(
            folder,
            num_steps=10**9,
            seed=seed,
            prompts__per_round=4,
            rollouts__max_staleness=1,
            generators__min_workers=2,
            generators__max_workers=2,
            generators__worker_timeout_s=patience_s,
            generators__max_retries=9,
            rewards__0__num_workers=2,
            rewards__0__worker_timeout_s=patience_s,
            rewards__0__max_retries=9,
        )
        pace = Pace(generate_s=1.0, score_s=0.1, learn_s=0.2, spread=0.3)
        watch, samples = Watch(), list[Sample]()
        with open_run(recipe) as run, stand_in_run(recipe, run, watch, pace) as parts:
            faults = Faults(parts, watch, seed)
            end = time.monotonic() + 60 * minutes
            with (
                repeating(faults.next, fault_every_s, "fault"),
                repeating(lambda: samples.append(_sample()), sample_every_s, "soak sample"),
            ):
                # A run stops while it waits for a round too: one step at the least is looked at.
                train(
                    recipe,
                    parts.parts,
                    parts.progress,
                    lambda: time.monotonic() > end and watch.steps > 0,
                )
            pools = {name: pool.stats() for name, pool in parts.pools.items()}
    return {
        "minutes": minutes,
        "faults": dict(faults.done),
        "steps": watch.steps,
        "groups lost": watch.lost,
        "longest step, s": round(watch.longest_step_s, 1),
        "workers replaced": {name: stats.replaced for name, stats in pools.items()},
        "requests repeated": {name: stats.retried for name, stats in pools.items()},
        "growth": growths(samples),
    }


def live_actors() -> dict[str, list[int]]:
    """Return the process ids of live actors of this cluster, by class, in order."""
    found: dict[str, list[int]] = {}
    # Not public: the state API may answer for another cluster on this machine.
    for actor in ray._private.state.actors().values():
        if actor["State"] == "ALIVE":
            found.setdefault(actor["ActorClassName"], []).append(actor["Pid"])
    return {name: sorted(pids) for name, pids in found.items()}


def _sample() -> Sample:
    return Sample(probe(), sum(map(len, live_actors().values())))


def growths(samples: Sequence[Sample]) -> dict[str, dict[str, Any]]:
    """Return, by quantity, the slope of its floor and whether that grew more than tolerated.

    Work in flight comes and goes, and a busy machine holds more of it; a leak lifts the floor. So
    the least-squares line goes through the smallest value of each tenth of the time.

    Args:
        samples: In order of time; the first fifth is left out.
    """
    counted = samples[int(_WARM_UP * len(samples)) :]
    if len(counted) < _TENTHS:
        return {}
    hours = np.array([each.probe.at for each in counted]) / 3600
    starts = [part[0] for part in np.array_split(hours, _TENTHS)]
    found: dict[str, dict[str, Any]] = {}
    for name, tolerance in TOLERANCES.items():
        values = np.array([each.value(name) for each in counted]) / tolerance.scale
        floors = [float(part.min()) for part in np.array_split(values, _TENTHS)]
        slope = float(np.polyfit(np.array(starts) - hours[0], floors, 1)[0])
        growth = slope * float(hours[-1] - hours[0])
        found[name] = {
            "unit": tolerance.unit,
            "median": round(float(np.median(values)), 1),
            "largest": round(float(values.max()), 1),
            "slope per hour": round(slope, 2),
            "floors": [round(floor, 1) for floor in floors],
            "growth": round(growth, 2),
            "tolerated": tolerance.growth,
            "is_steady": growth <= tolerance.growth,
        }
    return found

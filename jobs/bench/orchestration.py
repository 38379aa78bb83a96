"""What the machinery costs, without models: generators, reward model and learner only sleep.

    python -m jobs.bench.orchestration scale     # 16 to 1,000 generators: throughput, driver, store
    python -m jobs.bench.orchestration overlap   # what sampling ahead gains, per mix of stages
    python -m jobs.bench.orchestration growth    # 1, 4, 2 generators by `videorl scale`, and a plot

Real are the loop, the pools and their actors, the reward workers' processes, the weight store, the
archive's tables and 4 MiB of latents per candidate in Ray's object store.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.bench.orchestration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("what", choices=sorted(BENCHMARKS), help="what is measured")
    made.add_argument("--json", type=Path, help="write the numbers to this file too")
    of_scale = made.add_argument_group("scale")
    of_scale.add_argument(
        "--workers",
        type=int,
        nargs="+",
        default=[16, 64, 256, 1000],
        help="numbers of generators that share --shared processes; 0 = skip this "
        "(default: %(default)s)",
    )
    of_scale.add_argument(
        "--shared", type=int, default=8, help="processes that they share (default: %(default)s)"
    )
    of_scale.add_argument(
        "--processes",
        type=int,
        default=64,
        help="then so many generators with a process each; 0 = none (default: %(default)s)",
    )
    of_scale.add_argument(
        "--stretch",
        type=int,
        default=10,
        help="how many times longer that run is (default: %(default)s)",
    )
    of_scale.add_argument(
        "--rate",
        type=float,
        default=16.0,
        help="requests per second, ideally (default: %(default)s)",
    )
    of_scale.add_argument(
        "--store-mib",
        type=int,
        default=6144,
        help="size of Ray's object store (default: %(default)s)",
    )
    made.add_argument(
        "--steps", type=int, default=10, help="overlap: steps measured (default: %(default)s)"
    )
    made.add_argument(
        "--seconds",
        type=float,
        default=30.0,
        help="growth: seconds for each size (default: %(default)s)",
    )
    made.add_argument("--svg", type=Path, help="growth: draw the plot into this file")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; print every result as soon as it is there."""
    chosen = parser().parse_args(argv)
    # Ray's workers give way to every other process by default; here they are what is measured.
    os.environ.setdefault("RAY_worker_niceness", "0")
    found: dict[str, Any] = {
        "machine": {"cores": os.cpu_count(), "load at the start": os.getloadavg()[0]}
    }
    show(found["machine"])
    started = time.perf_counter()
    for name, numbers in BENCHMARKS[chosen.what](chosen):
        found[name] = numbers
        print(f"\n{name}", flush=True)
        show(numbers)
    found["machine"]["load at the end"] = os.getloadavg()[0]
    print(f"\n{time.perf_counter() - started:.0f} s; load at the end {os.getloadavg()[0]:.1f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def scale(chosen: argparse.Namespace) -> Any:
    """Yield the numbers of every size of the pool."""
    from jobs.bench.scale import Load, orchestration

    loads = [Load(count, chosen.shared, chosen.rate) for count in chosen.workers if count]
    if chosen.processes:
        loads.append(Load(chosen.processes, 0, chosen.rate, stretch=chosen.stretch))
    for load in loads:
        where = f"{load.num_shared} processes" if load.num_shared else "a process each"
        yield f"{load.num_workers} generators, {where}", orchestration(load, chosen.store_mib)


def overlap(chosen: argparse.Namespace) -> Any:
    """Yield seconds per step of every mix, by staleness."""
    from actors.cluster import connect
    from jobs.bench.overlap import MIXES, overlap

    with connect("local", num_cpus=4):
        for name, pace in MIXES.items():
            for staleness in (0, 1, 2):
                yield f"{name}, max_staleness {staleness}", overlap(pace, staleness, chosen.steps)


def growth(chosen: argparse.Namespace) -> Any:
    """Yield when each size of the pool was reached; write the plot."""
    from actors.cluster import connect
    from jobs.bench.growth import growth
    from jobs.bench.stand_ins import Pace

    with connect("local", num_cpus=4):
        found = growth((1, 4, 2), chosen.seconds, Pace(1.0, spread=0.2))
    if chosen.svg:
        chosen.svg.write_text(found["svg"])
    for phase in found["phases"]:
        yield f"{phase['generators']} generators", phase


BENCHMARKS = {"scale": scale, "overlap": overlap, "growth": growth}


def show(numbers: Mapping[str, Any]) -> None:
    """Print one number per line."""
    for name, value in numbers.items():
        shown = f"{value:.4g}" if isinstance(value, float) else value
        print(f"  {name:<40}{shown}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())

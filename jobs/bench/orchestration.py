"""What the machinery costs, without models: generators, reward model and learner only sleep.

    python -m jobs.bench.orchestration scale     # 16 to 1,000 generators: throughput, driver, store
    python -m jobs.bench.orchestration overlap   # what sampling ahead gains, per mix of stages
    python -m jobs.bench.orchestration growth    # 1, 4, 2 generators by `videorl scale`, and a plot
    python -m jobs.bench.orchestration head      # bytes through the driver's node, and its memory

Real are the loop, the pools and their actors, the reward workers' processes, the weight store, the
archive's tables and 4 MiB of latents per candidate in Ray's object store.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, show, write_json

Numbers = dict[str, Any]


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.bench.orchestration", __doc__)
    parser.add_argument("what", choices=sorted(BENCHMARKS), help="what is measured")
    add_json(parser)
    text = "scale: numbers of generators that share --shared processes; 0 = skip this"
    command.add_option(parser, "--workers", [16, 64, 256, 1000], text)
    command.add_option(parser, "--shared", 8, "scale: processes that they share")
    text = "scale: then so many generators with a process each; 0 = none"
    command.add_option(parser, "--processes", 64, text)
    command.add_option(parser, "--stretch", 10, "scale: how many times longer that run is")
    command.add_option(parser, "--rate", 16.0, "scale: requests per second, ideally")
    command.add_option(parser, "--store-mib", 6144, "scale: size of Ray's object store")
    command.add_option(parser, "--steps", 10, "overlap: steps measured")
    command.add_option(parser, "--seconds", 30.0, "growth: seconds for each size")
    command.add_option(
        parser, "--generators", 256, "head: generators, which share --shared processes"
    )
    command.add_option(parser, "--prompts", 64, "head: prompts of a step")
    command.add_option(parser, "--head-steps", 200, "head: steps measured")
    command.add_option(parser, "--request-s", 60.0, "head: seconds of a request")
    text = (
        "head: divide the bytes of media by this; 0 = by as little as fits into half of the memory"
    )
    command.add_option(parser, "--fraction", 0, text)
    parser.add_argument("--svg", type=Path, help="growth: draw the plot into this file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure; print every result as soon as it is there."""
    options = _parser().parse_args(argv)
    keep_priority()
    machine = {"cores": os.cpu_count(), "load at the start": os.getloadavg()[0]}
    found: dict[str, Numbers] = {"machine": machine}
    show(machine)
    started = time.perf_counter()
    for name, numbers in BENCHMARKS[options.what](options):
        found[name] = numbers
        show(numbers, name)
    machine["load at the end"] = os.getloadavg()[0]
    print(f"\n{time.perf_counter() - started:.0f} s; load at the end {os.getloadavg()[0]:.1f}")
    write_json(options.json, found)
    return 0


def scale(options: argparse.Namespace) -> Iterator[tuple[str, Numbers]]:
    """Yield the numbers of every size of the pool."""
    from jobs.bench.scale import Load, orchestration

    loads = [Load(count, options.shared, options.rate) for count in options.workers if count]
    if options.processes:
        loads.append(Load(options.processes, 0, options.rate, stretch=options.stretch))
    for load in loads:
        where = f"{load.num_shared} processes" if load.num_shared else "a process each"
        yield f"{load.num_workers} generators, {where}", orchestration(load, options.store_mib)


def overlap(options: argparse.Namespace) -> Iterator[tuple[str, Numbers]]:
    """Yield seconds per step of every mix, by staleness."""
    from actors.cluster import connect
    from jobs.bench.overlap import MIXES, overlap

    with connect("local", num_cpus=4):
        for name, pace in MIXES.items():
            for staleness in (0, 1, 2):
                yield f"{name}, max_staleness {staleness}", overlap(pace, staleness, options.steps)


def growth(options: argparse.Namespace) -> Iterator[tuple[str, Numbers]]:
    """Yield when each size of the pool was reached; write the plot."""
    from actors.cluster import connect
    from jobs.bench.growth import growth
    from jobs.bench.stand_ins import Pace

    with connect("local", num_cpus=4):
        found = growth((1, 4, 2), options.seconds, Pace(1.0, spread=0.2))
    if options.svg:
        options.svg.write_text(found["svg"])
    for phase in found["phases"]:
        yield f"{phase['generators']} generators", phase


def head(options: argparse.Namespace) -> Iterator[tuple[str, Numbers]]:
    """Yield the numbers of one wide run."""
    from dataclasses import replace

    from jobs.bench.thin_head import Load, smallest_fraction, thin_head
    from videorl.run.object_store import free_memory_bytes

    counts = (options.generators, options.shared)
    load = Load(*counts, 4, options.prompts, options.head_steps, options.request_s)
    fraction = options.fraction or smallest_fraction(load, free_memory_bytes())
    if fraction > 1:
        print(f"media have 1/{fraction} of the bytes of 81×480×832", flush=True)
    name = f"{load.num_workers} generators, {load.per_round} prompts a step"
    yield name, thin_head(replace(load, fraction=fraction))


BENCHMARKS = {"scale": scale, "overlap": overlap, "growth": growth, "head": head}


if __name__ == "__main__":
    raise SystemExit(command.run(main))

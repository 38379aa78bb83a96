"""A soak: a run on stand-ins with a fault every 30 seconds; whatever grows is named.

    python -m jobs.bench.soak --minutes 30

Generators, reward workers, encoder, learner and archive writer are killed, one generator hangs,
the pool grows and shrinks, requests are cancelled. Watched are the driver's memory, files,
threads and objects, all processes and actors, and the object store. Exit code 1: one of them grew
by more than is tolerated, or a group was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.bench.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--minutes", type=float, default=30.0, help="how long (default: %(default)s)")
    made.add_argument(
        "--every",
        type=float,
        default=30.0,
        help="seconds between two faults (default: %(default)s)",
    )
    made.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the faults' order and victims (default: %(default)s)",
    )
    made.add_argument("--json", type=Path, help="write the numbers here too")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Soak in a cluster of its own; print the verdict."""
    chosen = parser().parse_args(argv)

    from actors.cluster import connect
    from jobs.bench.soak_run import soak

    os.environ.setdefault("RAY_worker_niceness", "0")
    with connect("local", num_cpus=4):
        found = soak(chosen.minutes, chosen.every, 10.0, 30.0, chosen.seed)
    show(found)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if is_clean(found) else 1


def is_clean(found: Mapping[str, Any]) -> bool:
    """Tell whether nothing was lost and nothing grew."""
    growth = found["growth"].values()
    return found["groups lost"] == 0 and bool(growth) and all(one["is_steady"] for one in growth)


def show(found: Mapping[str, Any]) -> None:
    """Print what happened, a line per quantity, and the verdict."""
    for name, value in found.items():
        if name != "growth":
            print(f"{name}: {value}")
    head = ("", "median", "largest", "slope/h", "growth", "tolerated")
    print("{:<28}{:>10}{:>10}{:>10}{:>10}{:>11}".format(*head))
    for name, one in found["growth"].items():
        print(
            f"{name + ', ' + one['unit']:<28}{one['median']:>10}{one['largest']:>10}"
            f"{one['slope per hour']:>10}{one['growth']:>10}{one['tolerated']:>11}"
            f"{'' if one['is_steady'] else '  GROWS'}"
        )
    print("verdict:", "steady" if is_clean(found) else "NOT STEADY")


if __name__ == "__main__":
    sys.exit(main())

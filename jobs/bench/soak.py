"""A soak: a run on stand-ins with a fault every 30 seconds; whatever grows is named.

    python -m jobs.bench.soak --minutes 30

Generators, reward workers, encoder, learner and archive writer are killed, one generator hangs,
the pool grows and shrinks, requests are cancelled. Watched are the driver's memory, files,
threads and objects, all processes and actors, and the object store. Exit code 1: one of them grew
by more than is tolerated, or a group was lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, write_json

NOT_STEADY = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Soak in a cluster of its own; print the verdict."""
    parser = command.new_parser("python -m jobs.bench.soak", __doc__)
    command.add_option(parser, "--minutes", 30.0, "how long")
    command.add_option(parser, "--every", 30.0, "seconds between two faults")
    command.add_option(parser, "--seed", 0, "seed of the faults' order and victims")
    add_json(parser)
    options = parser.parse_args(argv)

    from actors.cluster import connect
    from jobs.bench.soak_run import soak

    keep_priority()
    with connect("local", num_cpus=4):
        found = soak(options.minutes, options.every, 10.0, 30.0, options.seed)
    show(found)
    write_json(options.json, found)
    return 0 if is_clean(found) else NOT_STEADY


def is_clean(found: Mapping[str, Any]) -> bool:
    """Tell whether nothing was lost and nothing grew."""
    growth = found["growth"].values()
    is_steady = bool(growth) and all(quantity["is_steady"] for quantity in growth)
    return found["groups lost"] == 0 and is_steady


def show(found: Mapping[str, Any]) -> None:
    """Print what happened, a line per quantity, and the verdict."""
    for name, value in found.items():
        if name != "growth":
            print(f"{name}: {value}")
    head = ("", "median", "largest", "slope/h", "growth", "tolerated")
    print("{:<28}{:>10}{:>10}{:>10}{:>10}{:>11}".format(*head))
    for name, grown in found["growth"].items():
        print(
            f"{name + ', ' + grown['unit']:<28}{grown['median']:>10}{grown['largest']:>10}"
            f"{grown['slope per hour']:>10}{grown['growth']:>10}{grown['tolerated']:>11}"
            f"{'' if grown['is_steady'] else '  GROWS'}"
        )
    print("verdict:", "steady" if is_clean(found) else "NOT STEADY")


if __name__ == "__main__":
    raise SystemExit(command.run(main))

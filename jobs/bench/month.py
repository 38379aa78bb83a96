"""The month in small: 5,000 steps on stand-ins with restarts and faults, on a quick clock.

    python -m jobs.bench.month --steps 5000 --lives 10
    python -m jobs.bench.month --archive                # the archive alone, without Ray

No part computes for long, so that a step takes a fraction of a second, and everything around it is
the real thing: loop, pools, archive writer with its mp4 files, checkpoints' notes, Ray. The driver
ends several times after a checkpoint and goes on from it, and faults come as in
`jobs.bench.soak`. Shown is what may grow: files, memory and open files of the driver and of Ray's
head process, object stores, and the archive. Exit code 1: the archive is not as it should be, a
group was lost, or there are more files than docs/reliability.md says.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jobs import command
from jobs.bench.measuring import add_json, keep_priority, write_json

BAD = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run in a cluster of its own; print how things grew."""
    parser = command.new_parser("python -m jobs.bench.month", __doc__)
    command.add_option(parser, "--steps", 5000, "steps of the whole run")
    command.add_option(parser, "--lives", 10, "how often the driver is started")
    command.add_option(parser, "--every", 20.0, "seconds between two faults")
    command.add_option(parser, "--look", 250, "steps between two looks at what may grow")
    command.add_option(parser, "--seed", 0, "of the faults' order and victims")
    parser.add_argument("--archive", action="store_true", help="the archive alone, without Ray")
    add_json(parser)
    options = parser.parse_args(argv)

    from jobs.bench.month_run import archive_month, month

    with ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "month"
        sizes = root, options.steps, options.lives
        if options.archive:
            found = archive_month(*sizes, options.look)
        else:
            from actors.cluster import connect

            keep_priority()
            stack.enter_context(connect("local", num_cpus=4))
            found = month(*sizes, options.every, options.look, options.seed)
    show(found)
    write_json(options.json, found)
    return 0 if is_clean(found) else BAD


def most_tables(num_steps: int) -> int:
    """Return the most Parquet files that an archive of so many steps has."""
    from videorl.data.archive_compaction import KEPT_APART, STEPS_PER_FILE
    from videorl.data.archive_tables import SCHEMAS

    return len(SCHEMAS) * (-(-num_steps // STEPS_PER_FILE) + STEPS_PER_FILE + KEPT_APART)


def is_clean(found: Mapping[str, Any]) -> bool:
    """Tell whether nothing was lost, and files stayed within their bound."""
    is_bounded = all(each["tables"] <= most_tables(each["step"]) for each in found["moments"])
    return is_bounded and not found["groups lost"] and found["archive"] == "as it should be"


def show(found: Mapping[str, Any]) -> None:
    """Print what happened, and a line for each look."""
    for name, value in found.items():
        if name != "moments":
            print(f"{name}: {value}")
    columns = list(found["moments"][0]) if found["moments"] else []
    print("".join(f"{name.replace('_bytes', ' MiB').replace('_', ' '):>16}" for name in columns))
    for moment in found["moments"]:
        cells = (
            f"{value / 2**20:.1f}" if name.endswith("_bytes") else f"{value}"
            for name, value in moment.items()
        )
        print("".join(f"{cell:>16}" for cell in cells))
    print("verdict:", "as it should be" if is_clean(found) else "NOT AS IT SHOULD BE")


if __name__ == "__main__":
    raise SystemExit(command.run(main))

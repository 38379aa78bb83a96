"""The papers' claims in miniature: train every arm of every study on Moving Shapes, and compare.

    python -m jobs.workshop.ablate --list
    python -m jobs.workshop.ablate --report docs/ablations.md
    python -m jobs.workshop.ablate --studies staleness online --seeds 3
    python -m jobs.workshop.ablate --from docs/ablations.json --report docs/ablations.md

Each run is one Ray task of one CPU. Stop it at any moment and start the same command again: what
is finished is not repeated. Exit codes: 1 = a run failed, the others are done all the same; 130 =
stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from videorl.errors import ConfigError, VideorlError

if TYPE_CHECKING:
    from actors.ablation import Outcome
    from videorl.ablation.plan import Run
    from videorl.ablation.results import Results


INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.workshop.ablate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings for every arm; they come first"
    )
    made.add_argument("--studies", nargs="+", default=[], metavar="NAME", help="default: all")
    made.add_argument("--seeds", type=int, default=5, help="training seeds (default: 5)")
    made.add_argument("--steps", type=int, default=24, help="optimizer steps (default: 24)")
    made.add_argument("--out", type=Path, default=Path("runs/ablations"), help="output folder")
    made.add_argument("--report", type=Path, help="write this Markdown page, its plots and JSON")
    made.add_argument("--from", dest="source", type=Path, help="report on this JSON, run nothing")
    made.add_argument("--list", action="store_true", help="print studies and runs, run nothing")
    made.add_argument("--local", action="store_true", help="one run after the other, without Ray")
    made.add_argument("--address", help="a running Ray cluster; default: RAY_ADDRESS, or a new one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """List, run or report; return the exit code."""
    chosen = parser().parse_intermixed_args(argv)
    if chosen.seeds < 1 or chosen.steps < 1:
        raise ConfigError(f"--seeds and --steps must be >= 1: {chosen.seeds}, {chosen.steps}")
    if chosen.source is not None:
        if chosen.report is None:
            raise ConfigError("--from needs --report: where to write the page")
        return rebuild(chosen.source, chosen.report)

    from videorl.ablation.plan import choose, plan

    studies = choose(chosen.studies)
    runs = plan(studies, chosen.seeds, chosen.steps, chosen.overrides)
    if chosen.list:
        show(runs)
        return 0

    from videorl.ablation.results import Results

    results = Results(chosen.out.absolute())
    try:
        failed = sweep(runs, results, chosen.address, is_local=chosen.local)
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    if chosen.report is not None:
        from videorl.ablation.report import write_report
        from videorl.ablation.summary import summarise

        found = summarise(studies, chosen.seeds, chosen.steps, chosen.overrides, results)
        write_report(chosen.report, found, parser().prog)
        print(f"report: {chosen.report}")
    return 1 if failed else 0


def show(runs: Sequence[Run]) -> None:
    """Print every arm once, and how many runs there are."""
    for label in dict.fromkeys(run.label for run in runs):
        print(label)
    print(f"{len(runs)} runs")


def sweep(runs: Sequence[Run], results: Results, address: str | None, *, is_local: bool) -> int:
    """Do what has no result yet; return how many runs failed."""
    from videorl.run.progress import duration, progress

    missing = results.missing(runs)
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before")
    failed, started = 0, time.perf_counter()
    with (
        outcomes(missing, results.runs, address, is_local=is_local) as found,
        progress("ablation runs", max(1, len(missing))) as count,
    ):
        for number, (run, result, error) in enumerate(found, start=1):
            if result is None:
                failed += 1
                path = results.fail(run, error)
                said = f"FAILED: {error.strip().splitlines()[-1]} (see {path})"
            else:
                results.write(run, result)
                said = f"{result['seconds']:.0f} s, {result['cpu_seconds']:.0f} s of CPU"
            left = (time.perf_counter() - started) / number * (len(missing) - number)
            place = f"{number}/{len(missing)} {run.label}, seed {run.recipe.seed}"
            print(f"{place}: {said}; ETA {duration(left)}", flush=True)
            count(1)
    return failed


@contextmanager
def outcomes(
    runs: Sequence[Run], folder: Path, address: str | None, *, is_local: bool
) -> Iterator[Iterator[Outcome]]:
    """Give what becomes of the runs, on Ray or here."""
    if is_local or not runs:
        from actors.ablation import run_here

        yield run_here(runs, folder)
        return
    from actors.ablation import run_on_ray
    from actors.cluster import connect

    with connect(address):
        yield run_on_ray(runs, folder)


def rebuild(source: Path, page: Path) -> int:
    """Write the report of finished runs again."""
    import json

    from videorl.ablation.report import write_report

    write_report(page, json.loads(source.read_text()), parser().prog)
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

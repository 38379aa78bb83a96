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
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from actors.ablation import Outcome
    from videorl.ablation.plan import Run
    from videorl.ablation.results import Results

PROG = "python -m jobs.workshop.ablate"
FAILED = 1


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser(PROG, __doc__)
    command.add_overrides(parser, "settings for every arm; they replace its own")
    parser.add_argument("--studies", nargs="+", default=[], metavar="NAME", help="default: all")
    command.add_option(parser, "--seeds", 5, "training seeds of every arm")
    command.add_option(parser, "--steps", 24, "optimizer steps")
    command.add_option(parser, "--out", Path("runs/ablations"), "output folder")
    parser.add_argument("--report", type=Path, help="write this Markdown page, its plots and JSON")
    parser.add_argument("--from", dest="source", type=Path, help="report on this JSON, run nothing")
    parser.add_argument("--list", action="store_true", help="print studies and runs, run nothing")
    parser.add_argument("--local", action="store_true", help="one run after the other, without Ray")
    command.add_address(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """List, run or report; return the exit code."""
    options = _parser().parse_intermixed_args(argv)
    if options.seeds < 1 or options.steps < 1:
        raise ConfigError(f"--seeds and --steps must be >= 1: {options.seeds}, {options.steps}")
    if options.source is not None:
        if options.report is None:
            raise ConfigError("--from needs --report: where to write the page")
        return rebuild(options.source, options.report)

    from videorl.ablation.plan import choose, plan

    studies = choose(options.studies)
    runs = plan(studies, options.seeds, options.steps, options.overrides)
    if options.list:
        show(runs)
        return 0

    from videorl.ablation.results import Results

    results = Results(command.output_folder(options.out.absolute()))
    try:
        failed = sweep(runs, results, options.address, is_local=options.local)
    except KeyboardInterrupt:
        return command.stopped()
    if options.report is not None:
        from videorl.ablation.report import write_report
        from videorl.ablation.summary import summarise

        found = summarise(studies, options.seeds, options.steps, options.overrides, results)
        write_report(options.report, found, PROG)
        print(f"report: {options.report}")
    return FAILED if failed else 0


def show(runs: Sequence[Run]) -> None:
    """Print every arm once, and how many runs there are."""
    for label in dict.fromkeys(run.label for run in runs):
        print(label)
    print(f"{len(runs)} runs")


def sweep(runs: Sequence[Run], results: Results, address: str | None, *, is_local: bool) -> int:
    """Do the runs without a result; return how many failed."""
    from videorl.run.progress import duration, progress

    missing = results.missing(runs)
    print(f"{len(runs)} runs, {len(runs) - len(missing)} of them finished before")
    failed, started = 0, time.perf_counter()
    with (
        outcomes(missing, results.runs, address, is_local=is_local) as found,
        progress("ablation runs", max(1, len(missing))) as reach,
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
            reach(number)
    return failed


@contextmanager
def outcomes(
    runs: Sequence[Run], folder: Path, address: str | None, *, is_local: bool
) -> Iterator[Iterator[Outcome]]:
    """Yield the outcome of each run as it ends, on Ray or in this process."""
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
    from videorl.ablation.report import write_report

    write_report(page, json.loads(source.read_text()), PROG)
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

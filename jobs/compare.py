"""`videorl compare`: several runs side by side: rewards with intervals, settings, cost, videos.

    videorl compare runs/a runs/b
    videorl compare runs/a runs/b runs/c --out comparison.html --json

Every run is compared with the first. Where two evaluations share held-out prompts and seeds, their
difference is paired by prompt; elsewhere it is marked as unpaired. The page is one file that needs
no other; nothing is written into the run folders.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import command, places
from jobs.results import add_json, results


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison, and write it as a page."""
    parser = command.new_parser("videorl compare", __doc__)
    parser.add_argument(
        "runs", type=places.place, nargs="+", metavar="RUN", help="a run folder, or its URI"
    )
    command.add_option(parser, "--out", Path("comparison.html"), "the page")
    command.add_option(parser, "--videos", 8, "prompts whose videos the page shows, at most")
    add_json(parser)
    options = parser.parse_args(argv)
    if options.videos < 0:
        parser.error(f"--videos must be 0 or more, got {options.videos}")
    command.output_file(options.out)

    from videorl.comparison.compare import compare, format_comparison
    from videorl.comparison.page import page
    from videorl.comparison.runs import read_runs
    from videorl.files import write_text

    with results(options) as show:
        found = compare(read_runs([places.here(run) for run in options.runs]))
        write_text(options.out, page(found, options.videos))
        show(found.to_dict(), format_comparison(found))
    print(f"page: {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

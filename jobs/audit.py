"""`videorl audit`: account for every prompt of a run, and look for contradictions in its records.

    videorl audit runs/moving_shapes
    videorl audit runs/moving_shapes --json

Every prompt was trained on, was dropped for a reason, or is still queued. The run may be working,
finished or killed. Exit code 0 = clean, 1 = contradictions were found.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs import command, places
from jobs.results import add_json, results

CONTRADICTED = 1


def main(argv: Sequence[str] | None = None) -> int:
    """Print the ledger and every contradiction."""
    parser = command.new_parser("videorl audit", __doc__)
    parser.add_argument(
        "run", type=places.place, help="a run folder, or its URI; nothing in it is changed"
    )
    add_json(parser)
    text = "read every file that the run rests on, even where its size and times are the same"
    parser.add_argument("--full", action="store_true", help=text)
    options = parser.parse_args(argv)

    from videorl.audit import audit, format_audit
    from videorl.run.folder import RunFolder

    with results(options) as show:
        found = audit(RunFolder(places.here(options.run).absolute()), fresh=options.full)
        show(found.to_dict(), format_audit(found))
    return 0 if found.is_clean else CONTRADICTED


if __name__ == "__main__":
    raise SystemExit(command.run(main))

"""`videorl audit`: account for every prompt of a run, and look for contradictions in its records.

    videorl audit runs/moving_shapes
    videorl audit runs/moving_shapes --json

Every prompt was trained on, was dropped for a reason, or is still queued. The run may work
meanwhile, be finished, or have been killed. Exit code 0 = clean, 1 = contradictions were found.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from videorl.errors import VideorlError

CONTRADICTED = 1


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl audit",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="a run folder; nothing in it is changed")
    made.add_argument("--json", action="store_true", help="print JSON instead of a table")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the ledger and every contradiction."""
    chosen = parser().parse_args(argv)

    from videorl.audit import audit, format_audit
    from videorl.run.folder import RunFolder

    found = audit(RunFolder(chosen.run.absolute()))
    print(json.dumps(found.to_dict(), indent=2) if chosen.json else format_audit(found))
    return 0 if found.is_clean else CONTRADICTED


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

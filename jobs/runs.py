"""`videorl runs`: list the runs of a folder: state, step, reward, and what they take on disk.

    videorl runs
    videorl runs /shared/runs --json

Runs are found at any depth, but not in hidden folders. `reward` is the mean total of the newest
step's candidates, `held-out` that of the base and of the aligned policy on held-out prompts, `id`
what trackers know the run by. What is damaged, or of another version, is named below the table.
Nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command, places
from jobs.results import add_json, results
from videorl.errors import RunFolderError

if TYPE_CHECKING:
    from videorl.run.overview import RunOverview

_COLUMNS = ("run", "state", "step", "reward", "held-out", "disk", "updated", "id")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table, or JSON."""
    parser = command.new_parser("videorl runs", __doc__)
    text = "folder of run folders, or one run, or the URI of either (default: runs)"
    parser.add_argument("folder", type=places.place, nargs="?", default=Path("runs"), help=text)
    add_json(parser)
    options = parser.parse_args(argv)

    from videorl.run.overview import overviews, run_folders

    folder = places.here(options.folder, media=False)
    if not folder.is_dir():
        raise RunFolderError(f"there is no folder {folder}; name the folder of your runs")
    found = overviews(run_folders(folder))
    with results(options) as show:
        show([dataclasses.asdict(run) for run in found], _listed(found, folder))
    return 0


def _listed(found: Sequence[RunOverview], folder: Path) -> str:
    """Return the table, and what is wrong below it."""
    if not found:
        return f"no run in {folder}: `videorl train RECIPE` makes one"
    rows = [_COLUMNS, *(_row(run, folder) for run in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    problems = (f"{_name(run, folder)}: {run.problem}" for run in found if run.problem)
    return "\n".join([*lines, *problems])


def _name(run: RunOverview, root: Path) -> str:
    from videorl.run.overview import run_name

    folder = Path(run.folder)
    return run.name if folder == root else run_name(folder, root)


def _row(run: RunOverview, root: Path) -> tuple[str, ...]:
    name = _name(run, root)
    held_out = "" if run.before is None or run.after is None else _change(run.before, run.after)
    return (
        name,
        run.state,
        f"{run.step}/{run.num_steps}" if run.num_steps else str(run.step),
        "" if run.reward is None else f"{run.reward:+.3f}",
        held_out,
        _bytes(run.bytes_on_disk),
        _when(run.updated),
        run.run_id,
    )


def _change(before: float, after: float) -> str:
    return f"{before:+.3f} to {after:+.3f}"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _when(seconds: float) -> str:
    from datetime import datetime

    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}" if seconds else ""


if __name__ == "__main__":
    raise SystemExit(command.run(main))

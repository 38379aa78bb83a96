"""The table of `docs/reliability.md` from its JSON: `python -m tests.chaos.table FILE …`."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.faults import FAULTS

HEAD = """\
| fault | times | right | run ended and was started again | recovery, median | worst | on |
|---|---|---|---|---|---|---|"""

Results = Sequence[Mapping[str, Any]]


def table(passes: Iterable[Mapping[str, Any]]) -> str:
    """Return one row per fault that struck, in the order of `FAULTS`.

    Args:
        passes: Each has its `date` and `results`, as `tests.chaos` writes them.
    """
    results = [{**each, "date": one["date"]} for one in passes for each in one["results"]]
    rows = [HEAD]
    for name in FAULTS:
        found = [one for one in results if one["scenario"]["fault"] == name]
        if found:
            rows.append(row(name, found))
    right = sum(one["is_right"] for one in results)
    return "\n".join([*rows, "", f"{right} of {len(results)} right, of {len(rows) - 1} kinds"])


def row(name: str, found: Results) -> str:
    times = [one["recovery_s"] for one in found if one["recovery_s"] is not None]
    right = sum(one["is_right"] for one in found)
    ended = sum(bool(one["driver_exits"]) for one in found)
    seconds = [f"{statistics.median(times):.1f} s", f"{max(times):.1f} s"] if times else ["-", "-"]
    days = ", ".join(sorted({one["date"] for one in found}))
    return f"| {name} | {len(found)} | {right} | {ended} | {seconds[0]} | {seconds[1]} | {days} |"


if __name__ == "__main__":
    print(table(json.loads(Path(file).read_text()) for file in sys.argv[1:]))

"""The names of files and folders that belong to a step: `step-000012`, `step-000012.parquet`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_NAME = re.compile(r"step-(\d{1,18})(?:\.[^.]*)?", re.ASCII)


def step_name(step: int) -> str:
    """Return the name of a step's folder, or that of its file without ending."""
    return f"step-{step:06d}"


def step_of(name: str) -> int | None:
    """Return the step that a name says, whatever its ending; None = it is no name of a step."""
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def steps_of(paths: Iterable[Path]) -> set[int]:
    """Return the steps that the names of `paths` say; other names say none."""
    return {step for path in paths if (step := step_of(path.name)) is not None}

"""What can be said of a run from its folder alone, without waking anything up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from videorl.run.folder import RunFolder
from videorl.run.lock import is_held
from videorl.run.run_id import read_run_id
from videorl.run.sinks import read_metrics

State = Literal["running", "finished", "stopped", "damaged"]


@dataclass(frozen=True, slots=True)
class RunOverview:
    """One line of `videorl runs`."""

    folder: str
    name: str
    state: State
    """`running` = a driver holds the folder; `stopped` = none does, and the end was not reached."""
    step: int
    """Steps that were finished."""
    num_steps: int | None
    """Steps that the recipe asks for."""
    reward: float | None
    """Mean total of the newest step's candidates."""
    before: float | None
    """Mean total on held-out prompts of the base,"""
    after: float | None
    """and of the aligned policy, once the run is finished."""
    bytes_on_disk: int
    updated: float
    """When its metrics were last written, in seconds since 1970; 0 = never."""
    problem: str = ""
    """Why it cannot be read."""
    run_id: str = ""
    """Unique, and the same in every tracker; empty in a run of an older version."""


def overview(root: Path) -> RunOverview:
    """Return what there is to say of a run folder, whatever state it is in."""
    try:
        return _overview(root)
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        return _damaged(root, str(error).splitlines()[0])


def _overview(root: Path) -> RunOverview:
    folder = RunFolder(root)
    config = _mapping(yaml.safe_load(folder.config.read_text(encoding="utf-8")))
    rows = read_metrics(folder.metrics) if folder.metrics.exists() else []
    summary = _mapping(json.loads(folder.summary.read_text())) if folder.summary.exists() else {}
    num_steps = config.get("num_steps")
    step = rows[-1]["step"] + 1 if rows else 0
    is_over = bool(summary) and summary.get("num_steps", 0) >= (num_steps or 0)
    total = _mapping(_mapping(summary.get("evaluation")).get("total"))
    return RunOverview(
        folder=str(root),
        name=str(config.get("name", root.name)),
        state="running" if is_held(root) else "finished" if is_over else "stopped",
        step=step,
        num_steps=num_steps,
        reward=rows[-1].get("reward/total") if rows else None,
        before=total.get("before"),
        after=total.get("after"),
        bytes_on_disk=_size(root),
        updated=folder.metrics.stat().st_mtime if rows else 0.0,
        run_id=read_run_id(root),
    )


def run_folders(root: Path) -> list[Path]:
    """Return the run folders in a folder (itself included), at any depth but not in one another."""

    def walk(path: Path) -> Iterator[Path]:
        if (path / "config.yaml").is_file():
            yield path
            return
        with suppress(PermissionError):
            for child in sorted(path.iterdir()):
                if child.is_dir() and not child.is_symlink():
                    yield from walk(child)

    return list(walk(root))


def _damaged(root: Path, problem: str) -> RunOverview:
    return RunOverview(
        str(root), root.name, "damaged", 0, None, None, None, None, _size(root), 0.0, problem
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _size(root: Path) -> int:
    """Return the bytes of all files; those that vanish meanwhile count nothing."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total

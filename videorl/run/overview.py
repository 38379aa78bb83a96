"""What can be said of a run from its folder alone, without waking anything up."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from videorl.files import read_json, read_yaml
from videorl.run.folder import RunFolder
from videorl.run.lock import is_held
from videorl.run.run_id import read_run_id
from videorl.run.sinks import read_last_metrics

State = Literal["running", "finished", "stopped", "damaged"]
_MARKS = frozenset({"config.yaml", "metrics.jsonl"})
"""Files of which a run folder has one at least."""
_AT_ONCE = 8
"""Folders that are looked at at the same time: on network disks it is waiting that takes long."""


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
    """Why it, or a part of it, cannot be read, as a sentence."""
    run_id: str = ""
    """Unique, and the same in every tracker; empty in a run of an older version."""


def overview(root: Path, bytes_on_disk: int | None = None) -> RunOverview:
    """Return what there is to say of a run folder, whatever state it is in.

    Args:
        root: The run folder.
        bytes_on_disk: As they were counted before; None = every file of it is looked at.
    """
    size = _size(root) if bytes_on_disk is None else bytes_on_disk
    try:
        return _overview(root, size)
    except (OSError, ValueError, TypeError) as error:
        return _damaged(root, size, (str(error).splitlines() or [type(error).__name__])[0])


def overviews(folders: Sequence[Path]) -> list[RunOverview]:
    """Return the overviews of many folders; their disks are asked at the same time."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(overview, folders))


def state_of(root: Path, num_steps: int | None, summary: Any) -> State:
    """Return whether a driver holds a folder, and otherwise whether its run reached the end.

    Args:
        root: The run folder.
        num_steps: Steps that its recipe asks for; None = it does not say.
        summary: What `summary.json` holds; empty = there is none.
    """
    if is_held(root):
        return "running"
    done = _whole(_mapping(summary).get("num_steps")) or 0
    return "finished" if summary and done >= (num_steps or 0) else "stopped"


def _overview(root: Path, size: int) -> RunOverview:
    folder = RunFolder(root)
    if not folder.config.is_file():
        raise ValueError("it has metrics but no config.yaml, which every run writes first")
    config = read_yaml(folder.config)
    if not isinstance(config, dict):
        raise ValueError(f"config.yaml holds no recipe but {str(config)[:40]!r}")
    row = (read_last_metrics(folder.metrics) if folder.metrics.exists() else None) or {}
    summary = read_json(folder.summary) if folder.summary.exists() else {}
    num_steps = _whole(config.get("num_steps"))
    evaluation = _mapping(_mapping(summary).get("evaluation"))
    total = _mapping(evaluation.get("total"))
    return RunOverview(
        folder=str(root),
        name=str(config.get("name") or root.name),
        state=state_of(root, num_steps, summary),
        step=row["step"] + 1 if row else 0,
        num_steps=num_steps,
        reward=_number(row.get("reward/total")),
        before=_number(total.get("before")),
        after=_number(total.get("after")),
        bytes_on_disk=size,
        updated=folder.metrics.stat().st_mtime if row else 0.0,
        problem=" ".join(_of_other_versions(config, summary, evaluation)),
        run_id=read_run_id(root),
    )


def _of_other_versions(
    config: Mapping[str, Any], summary: Any, evaluation: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is missing as the files are of another version, as sentences."""
    if _whole(config.get("num_steps")) is None:
        yield "Its config.yaml has no num_steps, as of another version: its end is not known."
    if not isinstance(summary, dict):
        yield "Its summary.json holds no results, as of another version."
    total = _mapping(evaluation.get("total"))
    if evaluation and None in (_number(total.get("before")), _number(total.get("after"))):
        yield "Its evaluation is of another version: `videorl evaluate` makes it anew."


def run_folders(root: Path) -> list[Path]:
    """Return the run folders in a folder (itself included), at any depth but not in one another.

    Hidden folders and links are left alone.
    """

    def walk(path: str) -> Iterator[Path]:
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:  # not ours to read, or deleted meanwhile
            return
        # Without a recipe it is damaged, which is better said than left out.
        if any(entry.name in _MARKS and entry.is_file() for entry in entries):
            yield Path(path)
            return
        for entry in entries:
            if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path)

    return list(walk(str(root)))


def run_name(folder: Path, root: Path) -> str:
    """Return a run's path below a folder, fit to be shown: bytes that are no UTF-8 are replaced."""
    return os.fsencode(folder.relative_to(root)).decode("utf-8", "replace")


def _damaged(root: Path, size: int, problem: str) -> RunOverview:
    return RunOverview(
        str(root), root.name, "damaged", 0, None, None, None, None, size, 0.0, problem
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    """Return a finite number, else None: files may be of other versions, or made by hand."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _size(root: Path) -> int:
    """Return the bytes of all files; those that vanish meanwhile count nothing."""
    total, left = 0, [str(root)]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
    return total

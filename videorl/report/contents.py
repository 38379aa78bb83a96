"""What a run folder holds at any time, finished or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from videorl.errors import RunFolderError
from videorl.files import read_json, read_yaml
from videorl.run.changes import Change, read_changes
from videorl.run.folder import RunFolder
from videorl.run.guard_notes import read_notes
from videorl.run.run_id import read_run_id
from videorl.run.sinks import read_metrics

ENDS = ("_low", "_high")
"""What the names of an interval's ends add to that of their metric."""


@dataclass(frozen=True)
class VideoPair:
    """One held-out prompt and seed, before and after training; a missing file is None."""

    prompt: str
    seed: int
    before: Path | None
    after: Path | None
    before_score: float | None
    after_score: float | None


@dataclass(frozen=True)
class RunContents:
    """Everything that the report shows; what does not exist yet is empty."""

    name: str
    num_steps: int | None
    config: str
    rows: list[dict[str, Any]]
    """Rows of `metrics.jsonl`, in step order."""
    summary: dict[str, Any]
    """`summary.json`; empty until the run has ended."""
    videos: list[VideoPair]
    changes: Sequence[Change] = ()
    """Settings that were changed while it ran."""
    alarms: Sequence[Mapping[str, Any]] = ()
    """What the guard noted, oldest first."""
    rollbacks: Sequence[Mapping[str, Any]] = ()
    """Where it sent the run back to."""
    run_id: str = ""
    """What trackers know the run by; empty in one of an older version."""

    def series(self, metric: str) -> list[tuple[int, float | None]]:
        """Return (step, value) of every step that has the metric; NaN was written as None."""
        return [(row["step"], row[metric]) for row in self.rows if metric in row]

    def drift_and_total(self) -> list[tuple[float, float]]:
        """Return the drift of each evaluated version from the base, and its held-out total."""
        drifts = {step + 1: drift for step, drift in self.series("drift/predictions")}
        versions, totals = (
            dict(self.series(f"evaluation/{name}")) for name in ("step", "reward/total")
        )
        found: list[tuple[float, float]] = []
        for step, version in versions.items():
            drift, total = drifts.get(int(version or 0)), totals.get(step)
            if drift is not None and total is not None:
                found.append((drift, total))
        return found

    def metrics(self) -> list[str]:
        """Return the names of all metrics, in order of first appearance.

        The ends of an interval are no metrics of their own, see `band`.
        """
        names = dict.fromkeys(name for row in self.rows for name in row)
        ends = {f"{name}{end}" for name in names for end in ENDS if has_band(name, names)}
        return [name for name in names if name != "step" and name not in ends]

    def band(self, metric: str) -> list[tuple[int, float, float]]:
        """Return (step, low, high) of every step that has an interval of the metric."""
        low, high = (f"{metric}{end}" for end in ENDS)
        rows = [(row["step"], row.get(low), row.get(high)) for row in self.rows]
        return [(step, a, b) for step, a, b in rows if a is not None and b is not None]

    def reference_swaps(self) -> list[int]:
        """Return the steps after which the reference became another version."""
        versions = self.series("reference/version_step")
        return [step for (_, old), (step, new) in pairwise(versions) if old != new]


def has_band(metric: str, names: Collection[str]) -> bool:
    """Tell whether both ends of an interval of a metric are among some names."""
    return all(f"{metric}{end}" in names for end in ENDS)


def read_run(run_dir: Path) -> RunContents:
    """Read a run folder.

    Raises:
        RunFolderError: It is no run folder, or a file in it cannot be read.
    """
    folder = RunFolder(run_dir)
    if not folder.config.is_file():
        raise RunFolderError(f"{run_dir} is not a run folder: it has no {folder.config.name}")
    try:
        config, recipe = folder.config.read_text(encoding="utf-8"), read_yaml(folder.config)
        rows = read_metrics(folder.metrics) if folder.metrics.exists() else []
        notes, summary = read_notes(run_dir), _read_json(folder.summary, {})
        videos = _read_json(folder.evaluation / "videos.json", [])
        if not isinstance(summary, dict):
            raise ValueError(f"{folder.summary.name} holds no results but {str(summary)[:40]!r}")
        num_steps = recipe.get("num_steps")
        return RunContents(
            name=str(recipe.get("name", run_dir.name)),
            num_steps=num_steps if isinstance(num_steps, int) else None,
            config=config,
            rows=sorted(rows, key=lambda row: row["step"]),
            summary=summary,
            changes=read_changes(run_dir),
            alarms=notes["alarms"],
            rollbacks=notes["rollbacks"],
            videos=[_video_pair(folder.evaluation, entry) for entry in videos],
            run_id=read_run_id(run_dir),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(f"{run_dir} holds a file that cannot be read: {error}") from error


def _read_json(path: Path, otherwise: Any) -> Any:
    return read_json(path) if path.exists() else otherwise


def _video_pair(evaluation: Path, entry: dict[str, Any]) -> VideoPair:
    return VideoPair(
        prompt=str(entry["prompt"]),
        seed=int(entry["seed"]),
        before=_inside(evaluation, entry["before"]),
        after=_inside(evaluation, entry["after"]),
        before_score=entry.get("before_score"),
        after_score=entry.get("after_score"),
    )


def _inside(evaluation: Path, name: str | None) -> Path | None:
    """Return a file if it exists in the evaluation folder: the report embeds no other."""
    if name is None:
        return None
    path = (evaluation / name).resolve()
    return path if path.is_relative_to(evaluation.resolve()) and path.is_file() else None

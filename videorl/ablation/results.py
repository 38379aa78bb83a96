"""Results on disk, a file per run, and the errors of runs that failed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from videorl.ablation.plan import Run, is_older_of, same_settings
from videorl.files import write_json, write_text

Result = Mapping[str, Any]
"""What `videorl.ablation.runs.execute` returns."""


@dataclass(frozen=True)
class Results:
    """The output folder of a sweep."""

    root: Path

    @property
    def runs(self) -> Path:
        """Where unfinished runs keep their folders."""
        return self.root / "runs"

    def read(self, run: Run) -> Result | None:
        """Return the result of a run with exactly these settings, None if there is none."""
        path = self._result(run)
        if path.exists():
            result = json.loads(path.read_text())
            return result if same_settings(result["settings"], run.settings) else None
        today = run.settings
        return next((found for found in self._all if is_older_of(found["settings"], today)), None)

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs without a result, in order."""
        return [run for run in runs if self.read(run) is None]

    def write(self, run: Run, result: Result) -> None:
        """Keep a result, atomically; an earlier error of the run is forgotten."""
        write_json(self._result(run), result)
        self._error(run).unlink(missing_ok=True)

    def fail(self, run: Run, error: str) -> Path:
        """Keep what went wrong, with its traceback; the run is tried again next time."""
        path = self._error(run)
        write_text(path, f"{run.label}, seed {run.recipe.seed}\n{error}\n")
        return path

    @cached_property
    def _all(self) -> list[Result]:
        """Every result that was there when this was first read."""
        paths = sorted((self.root / "results").glob("*.json"))
        return [json.loads(path.read_text()) for path in paths]

    def _result(self, run: Run) -> Path:
        return self.root / "results" / f"{run.digest}.json"

    def _error(self, run: Run) -> Path:
        return self.root / "failed" / f"{run.digest}.txt"

"""Results on disk, a file per run, and the errors of runs that failed."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from videorl.ablation.plan import Run, is_older_of, same_settings
from videorl.config import Recipe
from videorl.files import superseded, write_json, write_text
from videorl.run.inputs import inputs_of

logger = logging.getLogger(__name__)

Result = Mapping[str, Any]
"""What `videorl.ablation.runs.execute` returns."""


def contents(recipe: Recipe) -> dict[str, str]:
    """Return setting -> digest of what it names, for all that a run rests on."""
    return {key: found.content.digest for key, found in inputs_of(recipe).items()}


@dataclass(frozen=True)
class Results:
    """The output folder of a sweep."""

    root: Path

    @property
    def runs(self) -> Path:
        """Where unfinished runs keep their folders."""
        return self.root / "runs"

    def read(self, run: Run) -> Result | None:
        """Return the result of a run with exactly these settings, None if there is none.

        A result that rests on other content than these settings name now is none, and that is
        logged; one of a version that noted no content is taken as it is.
        """
        path = self._result(run)
        if path.exists():
            result = json.loads(path.read_text())
            if not same_settings(result["settings"], run.settings):
                return None
            return None if self._is_outdated(run, result) else result
        today = run.settings
        return next((found for found in self._all if is_older_of(found["settings"], today)), None)

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Return the runs without a result, in order."""
        return [run for run in runs if self.read(run) is None]

    def write(self, run: Run, result: Result) -> None:
        """Keep a result, atomically; an earlier error of the run is forgotten.

        A result that it replaces, as what it rested on has changed, is moved to `superseded/`.
        """
        superseded.move(self._result(run), self.root)
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

    def _is_outdated(self, run: Run, result: Result) -> bool:
        if not (then := result.get("inputs")):
            return False
        now = contents(run.recipe)
        changed = [key for key in then.keys() & now.keys() if then[key] != now[key]]
        if changed:
            logger.warning(
                "%s, seed %d is done again: %s holds something else now",
                run.label,
                run.recipe.seed,
                ", ".join(sorted(changed)),
            )
        return bool(changed)

    def _result(self, run: Run) -> Path:
        return self.root / "results" / f"{run.digest}.json"

    def _error(self, run: Run) -> Path:
        return self.root / "failed" / f"{run.digest}.txt"

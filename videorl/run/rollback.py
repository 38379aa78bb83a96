"""Back to an earlier checkpoint, with a smaller rate, when the guard says so."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from videorl.config import Recipe
from videorl.errors import GuardError, RollbackError
from videorl.files import write_json
from videorl.run.changes import note_changes
from videorl.run.checkpoints import open_checkpoints

logger = logging.getLogger(__name__)

FILE = "guard.json"
_RATE = "optimizer.learning_rate"


def guarded(
    recipe: Recipe, root: Path, work: Callable[[Recipe], bool], report: Callable[[], object]
) -> bool:
    """Do the work of a run, again from an earlier checkpoint whenever the guard sends it back.

    Args:
        recipe: The run.
        root: Its folder.
        work: Runs the recipe, or goes on with it; returns whether it reached its end.
        report: Writes the run's report, which says why it ended.

    Raises:
        GuardError: The guard stopped the run.
    """
    while True:
        _remove_later(recipe, root)
        try:
            return work(with_smaller_rate(recipe, root))
        except RollbackError as error:
            try:
                go_back(recipe, root, error.step, str(error))
            except GuardError:
                report()
                raise
        except GuardError:
            report()
            raise


def with_smaller_rate(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with the learning rate that is left after the rollbacks of the run."""
    factor = 1.0
    for row in _notes(root)["rollbacks"]:
        factor *= row["rate_factor"]
    optimizer = recipe.optimizer
    rate = optimizer.learning_rate * factor
    return replace(recipe, optimizer=replace(optimizer, learning_rate=rate))


def go_back(recipe: Recipe, root: Path, step: int, reason: str) -> None:
    """Remove the checkpoints after `step`, from which the run then goes on, and note why.

    Raises:
        GuardError: There is none of `step`, so that all others are left: it could not be written
            then, or was removed by hand.
    """
    if step not in (steps := open_checkpoints(recipe.checkpoint, root).steps()):
        there = ", ".join(map(str, steps)) or "none"
        raise GuardError(
            f"{reason}; the run cannot go back to step {step}, of which there is no checkpoint "
            f"(but of: {there}): it stops"
        )
    before = with_smaller_rate(recipe, root).optimizer.learning_rate
    notes, factor = _notes(root), recipe.guard.rate_factor
    row = {"to": step, "rate_factor": factor, "reason": reason, "is_done": False}
    notes["rollbacks"].append(row)
    # Before checkpoints go: a run that is cut off in between removes the rest when it starts again.
    write_json(root / FILE, notes)
    note_changes(root, {_RATE: (before, before * factor)}, step)
    _remove_later(recipe, root)
    logger.warning(
        "%s: back to the checkpoint of step %d, with a learning rate of %g instead of %g",
        reason,
        step,
        before * factor,
        before,
    )


def _remove_later(recipe: Recipe, root: Path) -> None:
    """Remove the checkpoints that a rollback has not removed yet."""
    notes = _notes(root)
    begun = [row for row in notes["rollbacks"] if not row.get("is_done", True)]
    for row in begun:
        open_checkpoints(recipe.checkpoint, root).remove_after(row["to"])
        row["is_done"] = True
    if begun:
        write_json(root / FILE, notes)


def _notes(root: Path) -> dict[str, Any]:
    path = root / FILE
    saved = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"alarms": [], "rollbacks": [], **saved}

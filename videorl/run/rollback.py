"""Back to an earlier checkpoint, with a smaller rate, when the guard says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from videorl.config import Recipe
from videorl.errors import GuardError, RollbackError
from videorl.run.changes import note_changes, read_changes
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import open_checkpoints
from videorl.run.guard_notes import read_notes, write_notes

logger = logging.getLogger(__name__)

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
        try:
            finish_going_back(recipe, root)
            return work(with_smaller_rate(recipe, root))
        except RollbackError as error:
            if not begin_going_back(recipe, root, error.step, str(error)):
                report()
                missing = f"there is no checkpoint of step {error.step}, or before, to go back to"
                raise GuardError(f"{error}; {missing}") from error
        except GuardError:
            report()
            raise


def with_smaller_rate(recipe: Recipe, root: Path) -> Recipe:
    """Return the recipe with the learning rate that is left after the rollbacks of the run."""
    rate = _rate(recipe, read_notes(root)["rollbacks"])
    return replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=rate))


def begin_going_back(recipe: Recipe, root: Path, step: int, reason: str) -> bool:
    """Note that a run goes back to a checkpoint of `step` or before; False where there is none."""
    there = [each for each in open_checkpoints(recipe.checkpoint, root).steps() if each <= step]
    if there:
        notes, factor = read_notes(root), recipe.guard.rate_factor
        row = {"to": there[-1], "rate_factor": factor, "reason": reason, "is_done": False}
        notes["rollbacks"].append(row)
        write_notes(root, notes)
    return bool(there)


def finish_going_back(recipe: Recipe, root: Path) -> None:
    """Remove the checkpoints after the one that a run goes back to, if it is to.

    What was cut off in between is finished by the next call.
    """
    notes = read_notes(root)
    rows = notes["rollbacks"]
    if not rows or rows[-1].get("is_done", True):
        return
    row, step = rows[-1], rows[-1]["to"]
    note = CheckpointNote(root, recipe.checkpoint)
    note.before_save()  # a store that lost the note would go on with the old rate
    open_checkpoints(recipe.checkpoint, root).remove_after(step)
    note.saved(step)
    before, after = _rate(recipe, rows[:-1]), _rate(recipe, rows)
    if not any(
        (each.step, each.key, each.after) == (step, _RATE, after) for each in read_changes(root)
    ):
        note_changes(root, {_RATE: (before, after)}, step)
    row["is_done"] = True
    write_notes(root, notes)
    logger.warning(
        "%s: back to the checkpoint of step %d, with a learning rate of %g instead of %g",
        row["reason"],
        step,
        after,
        before,
    )


def _rate(recipe: Recipe, rollbacks: Sequence[Mapping[str, Any]]) -> float:
    return recipe.optimizer.learning_rate * prod(row["rate_factor"] for row in rollbacks)

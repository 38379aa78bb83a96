"""Back to an earlier checkpoint, with a smaller rate, when the guard says so."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

from videorl.config import Recipe
from videorl.errors import GuardError, RollbackError
from videorl.run.changes import note_changes, read_changes
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoints import open_checkpoints
from videorl.run.guard_notes import read_notes, write_notes

logger = logging.getLogger(__name__)

_RATE = "optimizer.learning_rate"
Notes: TypeAlias = Mapping[str, list[dict[str, Any]]]
"""What `read_notes` returns."""


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
    asked, rate = recipe.optimizer.learning_rate, rate_left(recipe, read_notes(root))
    if rate != asked:
        logger.warning(
            "the learning rate is %g instead of %g, as the guard sent the run back; "
            "--change %s=VALUE goes on with another",
            rate,
            asked,
            _RATE,
        )
    return _with_rate(recipe, rate)


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
    before = rate_left(recipe, {**notes, "rollbacks": rows[:-1]})
    after = rate_left(recipe, notes)
    rates = [change for change in read_changes(root) if change.key == _RATE]
    is_noted = bool(rates) and (rates[-1].step, rates[-1].after) == (step, after)
    if before != after and not is_noted:
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


def rate_left(recipe: Recipe, notes: Notes) -> float:
    """Return the recipe's rate after those rollbacks that came since a person set it."""
    since = notes["rates"][-1]["rollbacks_before"] if notes["rates"] else 0
    factors = (row["rate_factor"] for row in notes["rollbacks"][since:])
    return recipe.optimizer.learning_rate * prod(factors)


def set_rate(
    recipe: Recipe, root: Path, changed: Mapping[str, tuple[Any, Any]]
) -> dict[str, tuple[Any, Any]]:
    """Note that a person set the learning rate by `--change`: earlier rollbacks no longer count.

    The same number as the last time is the same command started again, and sets nothing: so a
    rollback in between still counts.

    Args:
        recipe: With the rate that was asked for.
        root: The run folder.
        changed: Frozen setting -> its values in the run so far, and now.

    Returns:
        The same, with the rate that the last step had before this.
    """
    notes, asked = read_notes(root), recipe.optimizer.learning_rate
    if notes["rates"] and notes["rates"][-1]["asked"] == asked:
        return dict(changed)
    then, _ = changed.get(_RATE, (asked, asked))
    before = rate_left(_with_rate(recipe, then), notes)
    notes["rates"].append({"asked": asked, "rollbacks_before": len(notes["rollbacks"])})
    write_notes(root, notes)
    found = {**changed, _RATE: (before, asked)}
    return {key: (old, new) for key, (old, new) in found.items() if old != new}


def _with_rate(recipe: Recipe, rate: float) -> Recipe:
    return replace(recipe, optimizer=replace(recipe.optimizer, learning_rate=rate))

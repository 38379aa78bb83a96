"""Train a reward model from start to export, with a local trainer or a group of workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from videorl.errors import StoreLostError
from videorl.recipes.fingerprint import RunRecipe
from videorl.reward_training.config import TrainingRecipe
from videorl.run.checkpoint_note import CheckpointNote
from videorl.run.checkpoint_writer import newest_after
from videorl.run.sinks import RunSink
from videorl.step_record import stage_times


class Trainer(Protocol):
    """A `RewardTrainer`, or a group of them that work in step."""

    def start(self) -> Mapping[str, Any] | None:
        """Restore the newest checkpoint and return its loop state; None if there is none."""
        ...

    def step(self, step: int) -> Mapping[str, float]:
        """Apply an optimizer step and return numbers to log."""
        ...

    def save(self, loop_state: Mapping[str, Any]) -> None:
        """Write a checkpoint; raise OSError if it cannot be written."""
        ...

    def export(self, folder: Path) -> None:
        """Write the model in its published layout."""
        ...


def fit(
    recipe: TrainingRecipe,
    trainer: Trainer,
    sink: RunSink,
    folder: Path,
    should_stop: Callable[[], bool],
    note: CheckpointNote | None = None,
) -> bool:
    """Train to the last step and export the model.

    Args:
        recipe: How long to train and how often to save.
        trainer: Does the steps.
        sink: Gets the metrics of every step.
        folder: Where to export the model.
        should_stop: Asked before every step; True ends the training, with a checkpoint.
        note: Told of every checkpoint; None = the training has no folder.

    Returns:
        Whether the training reached its last step and was exported.
    """

    def loop_state(step: int, *, stored: bool = True) -> dict[str, Any]:
        return {"step": step, **(note.state(stored=stored) if note else {})}

    def save(step: int, saved: int) -> int:
        try:
            if note:
                note.before_save()
        except StoreLostError:  # the checkpoint is kept where it is written
            kept = loop_state(step, stored=False)
            newest_after(partial(trainer.save, kept), step, saved, note)
            raise
        return newest_after(partial(trainer.save, loop_state(step)), step, saved, note)

    state = trainer.start()
    if note:
        note.restored(state)
    step = 0 if state is None else int(state["step"])
    sink.truncate(step)
    saved = step
    while step < recipe.num_steps and not should_stop():
        started = time.perf_counter()
        metrics = trainer.step(step)
        sink.write(step, {**metrics, **stage_times(metrics, time.perf_counter() - started)})
        step += 1
        if recipe.checkpoint.interval and step % recipe.checkpoint.interval == 0:
            saved = save(step, saved)
    if saved != step:
        save(step, saved)
    if step < recipe.num_steps:
        return False
    trainer.export(folder)
    return True


def outcome(recipe: RunRecipe) -> dict[str, Any]:
    """Return what trackers are told at the end; a run without it counts as stopped in MLflow."""
    return {"recipe": recipe.name, "num_steps": recipe.num_steps}

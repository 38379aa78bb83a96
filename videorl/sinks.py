"""The metric sinks of one run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from videorl.fingerprint import RunRecipe
from videorl.metrics import FanOut, JsonlSink, RunSink, TensorBoardSink, WandbSink, fan_out
from videorl.progress import ProgressSink
from videorl.run_folder import RunFolder


@contextmanager
def open_sinks(recipe: RunRecipe, folder: RunFolder) -> Iterator[FanOut]:
    """Open everything that the recipe writes metrics to, and close it at the end."""
    sinks: list[RunSink] = [
        JsonlSink(folder.metrics),
        TensorBoardSink(folder.tensorboard),
        ProgressSink(recipe.num_steps),
    ]
    if recipe.metrics.wandb_project:
        sinks.append(WandbSink(folder.root, recipe.metrics.wandb_project, folder.root.name))
    together = fan_out(sinks)
    try:
        yield together
    finally:
        together.close()

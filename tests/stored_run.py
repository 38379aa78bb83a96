"""A small whole run in a process of its own, which may be killed on the way.

python -m tests.stored_run RUN_URI CHECKPOINT KILLED_AFTER_STEP

It is killed once the checkpoint of the step before is in the store.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.ray.whole_runs import overrides
from videorl import one_process
from videorl.config import Recipe
from videorl.recipes.reading import load_recipe
from videorl.run import sinks
from videorl.storage.preparing import open_place


def recipe_of(run_dir: str | Path, checkpoint: str | Path, **changes: object) -> Recipe:
    """Return the recipe of the run."""
    settings = overrides(Path(checkpoint), Path("unused"), **changes)
    return load_recipe("moving_shapes", [*settings, f"run_dir={run_dir}"])


class Killing(sinks.JsonlSink):
    """Ends its process without a word once a step is written and the one before is stored."""

    uri = ""
    after = -1

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        super().write(step, metrics)
        if step == self.after:
            end = time.monotonic() + 120
            while f"checkpoints/step-{step - 1:06d}/state.json" not in open_place(self.uri).list():
                assert time.monotonic() < end, "the checkpoint does not come"
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Run it."""
    from videorl.run.folder import open_run

    run_dir, checkpoint, after = sys.argv[1:]
    recipe = recipe_of(run_dir, checkpoint)
    Killing.uri, Killing.after = run_dir, int(after)
    sinks.JsonlSink = Killing
    with open_run(recipe) as folder:
        one_process.run(recipe, folder, lambda: False)


if __name__ == "__main__":
    main()

"""A small whole run in a process of its own, which may be killed on the way.

python -m tests.stored_run RUN_URI CHECKPOINT KILLED_AFTER_STEP

It is killed once the checkpoint of the step before is in the store.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.ray.whole_runs import overrides
from tests.s3_server import Way
from videorl import one_process
from videorl.config import Recipe
from videorl.recipes.reading import load_recipe
from videorl.run import sinks
from videorl.storage import mirror
from videorl.storage.preparing import open_place


def recipe_of(run_dir: str | Path, checkpoint: str | Path, **changes: object) -> Recipe:
    """Return the recipe of the run."""
    settings = overrides(Path(checkpoint), Path("unused"), **changes)
    return load_recipe("moving_shapes", [*settings, f"run_dir={run_dir}"])


class Disturbing(sinks.JsonlSink):
    """Does something once after a step."""

    acts: Mapping[int, Callable[[], None]] = {}

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        super().write(step, metrics)
        if act := self.acts.get(step):
            act()


def disturbed(monkeypatch: pytest.MonkeyPatch, acts: Mapping[int, Callable[[], None]]) -> None:
    """Have runs of this process do something after some steps."""
    monkeypatch.setattr(Disturbing, "acts", acts)
    monkeypatch.setattr("videorl.run.sinks.JsonlSink", Disturbing)


def leave_for_good(way: Way, uri: str) -> None:
    """Take the store away once the checkpoint of step 2 is in it; nobody is patient from then."""
    wait_for_checkpoint(uri, 2)
    (working,) = mirror._working.values()
    working._patience_s = 1.0
    way.mode = "refuse"
    way.interrupt()


def wait_for_checkpoint(uri: str, step: int) -> None:
    """Return when the checkpoint of a step is in the store."""
    end = time.monotonic() + 120
    while f"checkpoints/step-{step:06d}/state.json" not in open_place(uri).list():
        assert time.monotonic() < end, "the checkpoint does not come"
        time.sleep(0.1)


class Killing(sinks.JsonlSink):
    """Ends its process without a word once a step is written and the one before is stored."""

    uri = ""
    after = -1

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        super().write(step, metrics)
        if step == self.after:
            wait_for_checkpoint(self.uri, step - 1)
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

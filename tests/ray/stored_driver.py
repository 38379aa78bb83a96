"""The driver of a small run in a store, on a cluster that is there, killed on the way.

python -m tests.ray.stored_driver RUN_URI CHECKPOINT ADDRESS KILLED_AFTER_STEP

It is killed once the checkpoint of the step before is in the store.
"""

from __future__ import annotations

import sys

from actors.run import run
from tests.stored_run import Killing, recipe_of
from videorl.run import sinks
from videorl.run.folder import open_run


def main() -> None:
    """Run it."""
    uri, checkpoint, address, after = sys.argv[1:]
    Killing.uri, Killing.after = uri, int(after)
    sinks.JsonlSink = Killing
    recipe = recipe_of(uri, checkpoint)
    with open_run(recipe) as folder:
        run(recipe, folder, address)


if __name__ == "__main__":
    main()

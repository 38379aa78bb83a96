r"""`videorl train`: align a policy online, locally or under `ray job submit`.

    videorl train moving_shapes
    videorl train moving_shapes num_steps=20 run_dir=runs/short
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python -m jobs.train moving_shapes run_dir=/shared/runs/first

Everything goes into the run folder, runs/NAME unless `run_dir` says otherwise. Stop it at any
moment and start the same command again: it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from videorl.errors import VideorlError

INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("recipe", help="the name of a shipped recipe, or the path of a YAML file")
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, see videorl/config.py",
    )
    made.add_argument("--address", help="a running Ray cluster; default: RAY_ADDRESS, or a new one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run, or go on with, one recipe. Exit code 130 = stopped by a signal, and can be continued."""
    chosen = parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    from videorl.recipes.reading import load_recipe

    recipe = load_recipe(chosen.recipe, chosen.overrides)
    recipe.run_dir = str(lasting(Path(recipe.run_dir)))

    from videorl.run.folder import RunFolder, open_run

    if recipe.offline.archive:
        from videorl.learning.stored_pairs import check_archive

        check_archive(recipe, RunFolder(Path(recipe.run_dir)))
    with open_run(recipe) as folder:
        from actors.run import run

        finished = run(recipe, folder, chosen.address)
    if not finished:
        print(f"stopped; the same command goes on with {folder.root}", file=sys.stderr)
    return 0 if finished else INTERRUPTED


def lasting(run_dir: Path) -> Path:
    """Return where a run folder outlives this process.

    A submitted job works in Ray's copy of the code, which Ray deletes afterwards: a relative folder
    is placed in the home directory of the node instead.
    """
    if run_dir.is_absolute() or "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return run_dir.absolute()
    placed = Path.home() / run_dir
    logging.getLogger(__name__).warning("submitted job: the run folder is %s", placed)
    return placed


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

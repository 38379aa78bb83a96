"""`videorl evaluate`: compare a run's newest checkpoint with its base on held-out prompts.

    videorl evaluate runs/moving_shapes
    videorl evaluate runs/moving_shapes evaluation.best_of=16 evaluation.samples=8

The table is printed, and written nowhere unless `--out` is given: the run folder stays as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from videorl.errors import RunFolderError, VideorlError


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("run", type=Path, help="a run folder; its training may still go on")
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, such as those of `evaluation`",
    )
    made.add_argument("--out", type=Path, help="write the summary as JSON to this file")
    made.add_argument("--address", help="a running Ray cluster; default: RAY_ADDRESS, or a new one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; nothing in the run folder is changed."""
    chosen = parser().parse_intermixed_args(argv)

    from videorl.files import write_json
    from videorl.recipes.reading import load_recipe
    from videorl.run.folder import RunFolder

    folder = RunFolder(chosen.run.absolute())
    if not folder.config.exists():
        raise RunFolderError(f"{folder.root} is no run folder: it has no config.yaml")
    recipe = load_recipe(str(folder.config), chosen.overrides)

    from actors.cluster import connect
    from actors.evaluation import evaluate
    from videorl.evaluation.evaluate import format_summary

    with connect(chosen.address):
        summary = evaluate(recipe, folder)
    print(format_summary(summary))
    if chosen.out is not None:
        write_json(chosen.out, summary.to_dict())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

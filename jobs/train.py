r"""`videorl train`: align a policy online, locally or under `ray job submit`.

    videorl train moving_shapes
    videorl train moving_shapes num_steps=20 run_dir=runs/short
    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python -m jobs.train moving_shapes run_dir=/shared/runs/first

Everything goes into the run folder, runs/NAME unless `run_dir` says otherwise. Stop it at any
moment and start the same command again: it goes on from its last checkpoint; with --from-scratch it
begins anew, and what the folder held is kept in one beside it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command, places
from jobs.exit_codes import ExitCode
from videorl.errors import RehearsalError
from videorl.run.stages import Stages

if TYPE_CHECKING:
    from videorl.config import Recipe

_logger = logging.getLogger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    """Start a run or go on with it; return an exit code of `jobs.exit_codes`."""
    parser = command.new_parser("videorl train", __doc__)
    command.add_recipe(parser, "videorl/config.py")
    command.add_address(parser)
    command.add_from_scratch(parser)
    command.add_change(parser)
    places.add_take_over(parser)
    options = parser.parse_intermixed_args(argv)
    command.start_logging()
    stages = Stages()
    stages.begin(f"reading the recipe {options.recipe}")

    from videorl.recipes.advice import advice
    from videorl.recipes.reading import load_recipe

    changed = command.settings_of(options.change)
    recipe = load_recipe(options.recipe, [*options.overrides, *options.change])
    for sentence in advice(recipe):
        _logger.warning(sentence)
    recipe.run_dir = places.run_dir(recipe.run_dir)
    if shared := recipe.evaluation.base_cache:
        recipe.evaluation.base_cache = str(command.lasting(shared))

    from videorl.run.folder import RunFolder, open_run

    if recipe.offline.archive:
        from videorl.learning.stored_pairs import check_archive

        check_archive(recipe, RunFolder(Path(recipe.run_dir)))
    opened = open_run(
        recipe,
        from_scratch=options.from_scratch,
        change=changed,
        take_over=options.take_over,
    )
    with opened as folder:
        stages.begin("loading Ray")
        from actors.run import run

        try:
            finished = run(recipe, folder, options.address, stages)
        except RehearsalError as error:
            raise _with_plan(error, recipe) from error
    if not finished:
        return command.stopped(recipe.run_dir)
    learned = json.loads(folder.summary.read_text()).get("steps_learned")
    return ExitCode.LEARNED_NOTHING if learned == 0 else ExitCode.DONE


def _with_plan(error: RehearsalError, recipe: Recipe) -> RehearsalError:
    """Add what the plan says where memory was too small."""
    if not error.is_memory:
        return error
    from videorl.planning.fitting import peaks

    return RehearsalError(f"{error}. {peaks(recipe)}", is_memory=True)


if __name__ == "__main__":
    raise SystemExit(command.run(main))

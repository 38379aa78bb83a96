"""`videorl evaluate`: compare a run's newest checkpoint with its base on held-out prompts.

    videorl evaluate runs/moving_shapes
    videorl evaluate runs/moving_shapes evaluation.best_of=16 evaluation.samples=8

The comparison is printed; it is written to a file only with `--out`. Samples are kept in the run
folder, in `evaluation/groups`: stop it at any moment and start the same command again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs import command, places
from jobs.results import add_json, results
from videorl.errors import ConfigError, RunFolderError


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison. Exit code 130 = stopped, can be continued."""
    parser = command.new_parser("videorl evaluate", __doc__)
    parser.add_argument("run", type=places.place, help="a run folder; its training may still go on")
    command.add_overrides(parser, "settings to change, such as those of `evaluation`")
    parser.add_argument("--out", type=Path, help="write the summary as JSON to this file")
    command.add_address(parser)
    add_json(parser)
    options = parser.parse_intermixed_args(argv)
    if options.out is not None:
        command.output_file(options.out)

    from videorl.files import write_json
    from videorl.recipes.reading import load_recipe
    from videorl.run.folder import RunFolder
    from videorl.run.inputs import check_unchanged

    if not isinstance(options.run, Path):
        raise ConfigError(
            f"evaluate writes into the run, so it does not take the URI {options.run}: copy the "
            "run to a folder, or start the run again with other settings of `evaluation`"
        )
    folder = RunFolder(options.run.absolute())
    if not folder.config.exists():
        raise RunFolderError(f"{folder.root} is no run folder: it has no config.yaml")
    recipe = load_recipe(str(folder.config), options.overrides)

    check_unchanged(folder.root, recipe)

    from actors.cluster import connect
    from actors.evaluation import evaluate
    from videorl.evaluation.evaluate import format_summary
    from videorl.run.stopping import stop_on_signal

    # In this order: connecting replaces the handler of SIGTERM by one that exits at once.
    with results(options) as show:
        with connect(options.address), stop_on_signal() as should_stop:
            summary = evaluate(recipe, folder, should_stop)
        if summary is None:
            return command.stopped()
        show(summary.to_dict(), format_summary(summary))
    if options.out is not None:
        write_json(options.out, summary.to_dict())
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

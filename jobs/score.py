"""`videorl score`: score videos of a folder, a table or a run with reward models, on Ray.

    videorl score clips --reward video_reward=checkpoints/VideoReward
    videorl score clips.parquet --rewards my_recipe.yaml rewards.0.num_workers=4
    videorl score runs/first --reward vision_reward --out judged.parquet

Stop it at any moment and start the same command again: it goes on with what has no score yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from jobs import command, places

if TYPE_CHECKING:
    import pyarrow as pa

NOTHING_SCORED = 1
_SHOWN_ERRORS = 5


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl score", __doc__)
    text = "a folder of videos, a table (Parquet, CSV, JSON), or the folder of a run"
    parser.add_argument("source", type=places.place, help=text)
    command.add_overrides(parser, "settings of model N, counted from 0: rewards.N.key=value")
    command.add_models(parser, "--reward")
    text = "a recipe, or a YAML file with `rewards:` only"
    parser.add_argument("--rewards", metavar="RECIPE", help=text)
    text = "a table (CSV, JSON, Parquet) with `video` and `prompt`, for a folder of videos"
    parser.add_argument("--prompts", type=Path, help=text)
    command.add_option(parser, "--out", Path("scores.parquet"), "Parquet file of scores")
    command.add_option(parser, "--batch-size", 8, "videos that a worker gets at once")
    command.add_address(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Score what has no score yet. Exit code 1 = nothing could be scored, 130 = stopped."""
    parser = _parser()
    options = parser.parse_intermixed_args(argv)
    if options.batch_size < 1:
        parser.error(f"--batch-size must be >= 1, got {options.batch_size}")
    command.start_logging()

    from videorl.data.clips import find_clips
    from videorl.data.score_table import open_scores
    from videorl.recipes.reading import load_rewards

    rewards = load_rewards(options.reward, options.rewards, options.overrides)
    rewards = [command.located(reward) for reward in rewards]
    source = find_clips(places.here(options.source), options.prompts)
    out = command.output_file(command.lasting(options.out))
    from actors.scoring import score_missing

    with open_scores(out, rewards) as table:
        table.forget_changed(source)
        table.refuse(source.refused)
        num_before = len(table.scored.intersection(source.keys))
        finished = num_before == len(source.keys) or score_missing(
            source, rewards, table, options.batch_size, options.address
        )
        num_scored = _report(table.merge([*source.keys, *source.refused]), out, num_before)
    if not finished:
        return command.stopped()
    return 0 if num_scored else NOTHING_SCORED


def _report(table: pa.Table, out: Path, num_before: int) -> int:
    """Print counts, means and the first errors; return the number of videos with a score."""
    from videorl.data.score_rows import dimension_names

    errors = table["error"].drop_null().to_pylist()
    for error in errors[:_SHOWN_ERRORS]:
        print(error, file=sys.stderr)
    if len(errors) > _SHOWN_ERRORS:
        print(f"... and {len(errors) - _SHOWN_ERRORS} more in column `error`", file=sys.stderr)
    num_scored = len(table) - len(errors)
    print(
        f"{num_scored} of {len(table)} videos have scores ({num_before} had them before), "
        f"{len(errors)} could not be scored"
    )
    for name in ("total", *dimension_names(table)):
        if values := table[name].drop_null().to_pylist():
            print(f"  {name:<40} mean {fmean(values):+.4f}")
    print(out)
    return num_scored


if __name__ == "__main__":
    raise SystemExit(command.run(main))

"""`videorl score`: score videos of a folder, a table or a run with reward models, on Ray.

    videorl score clips --reward video_reward=checkpoints/VideoReward
    videorl score clips.parquet --rewards my_recipe.yaml rewards.0.num_workers=4
    videorl score runs/first --reward vision_reward --out judged.parquet

Stop it at any moment and start the same command again: it goes on with what has no score yet.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from jobs import command, places
from jobs.results import add_json, results

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
    add_json(parser)
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

    with results(options) as show, open_scores(out, rewards) as table:
        table.forget_changed(source)
        table.refuse(source.refused)
        num_before = len(table.scored.intersection(source.keys))
        finished = num_before == len(source.keys) or score_missing(
            source, rewards, table, options.batch_size, options.address
        )
        found = _facts(table.merge([*source.keys, *source.refused]), out, num_before)
        show(found, _told(found))
    if not finished:
        return command.stopped()
    return 0 if found["num_scored"] else NOTHING_SCORED


def _facts(table: pa.Table, out: Path, num_before: int) -> dict[str, Any]:
    """Return counts and means; the first errors are printed on standard error."""
    from videorl.data.score_rows import dimension_names

    errors = table["error"].drop_null().to_pylist()
    for error in errors[:_SHOWN_ERRORS]:
        print(error, file=sys.stderr)
    if len(errors) > _SHOWN_ERRORS:
        print(f"... and {len(errors) - _SHOWN_ERRORS} more in column `error`", file=sys.stderr)
    columns = {
        name: table[name].drop_null().to_pylist() for name in ("total", *dimension_names(table))
    }
    return {
        "file": str(out),
        "num_videos": len(table),
        "num_scored": len(table) - len(errors),
        "num_scored_before": num_before,
        "num_failed": len(errors),
        "means": {name: fmean(values) for name, values in columns.items() if values},
    }


def _told(found: Mapping[str, Any]) -> str:
    """Return the same for people."""
    counts = (
        f"{found['num_scored']} of {found['num_videos']} videos have scores "
        f"({found['num_scored_before']} had them before), {found['num_failed']} could not be scored"
    )
    means = (f"  {name:<40} mean {mean:+.4f}" for name, mean in found["means"].items())
    return "\n".join([counts, *means, found["file"]])


if __name__ == "__main__":
    raise SystemExit(command.run(main))

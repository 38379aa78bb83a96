"""`videorl score`: score videos of a folder, a Parquet file or a run with reward models, on Ray.

    videorl score clips --reward video_reward=checkpoints/VideoReward
    videorl score clips.parquet --rewards my_recipe.yaml rewards.0.num_workers=4
    videorl score runs/first --reward vision_reward --out judged.parquet

Stop it at any moment and start the same command again: it goes on with what has no score yet.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.train import INTERRUPTED, lasting
from videorl.errors import VideorlError

if TYPE_CHECKING:
    import pyarrow as pa

    from videorl.config import RewardConfig

NOTHING_SCORED = 1
_SHOWN_ERRORS = 5


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl score",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "source", type=Path, help="a folder of videos, a Parquet file, or the folder of a run"
    )
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings of model N, counted from 0: rewards.N.key=value",
    )
    made.add_argument(
        "--reward",
        action="append",
        default=[],
        metavar="NAME[=PATH]",
        help="a reward model with its checkpoint; may be given several times",
    )
    made.add_argument(
        "--rewards", metavar="RECIPE", help="a recipe, or a YAML with `rewards:` only"
    )
    made.add_argument(
        "--prompts",
        type=Path,
        help="CSV or JSON lines with `video` and `prompt`, for a folder of videos",
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path("scores.parquet"),
        help="Parquet file of scores (default: %(default)s)",
    )
    made.add_argument(
        "--batch-size",
        type=int,
        default=8,
        help="videos that a worker gets at once (default: %(default)s)",
    )
    made.add_argument("--address", help="a running Ray cluster; default: RAY_ADDRESS, or a new one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Score what has no score yet. Exit code 1 = nothing could be scored, 130 = stopped."""
    made = parser()
    chosen = made.parse_intermixed_args(argv)
    if chosen.batch_size < 1:
        made.error(f"--batch-size must be >= 1, got {chosen.batch_size}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    from videorl.data.clips import find_clips
    from videorl.data.score_table import open_scores
    from videorl.recipes.reading import load_rewards

    rewards = [
        located(one) for one in load_rewards(chosen.reward, chosen.rewards, chosen.overrides)
    ]
    source = find_clips(chosen.source, chosen.prompts)
    out = lasting(chosen.out)
    from actors.scoring import score_missing

    with open_scores(out, rewards) as table:
        num_before = len(table.scored.intersection(source.keys))
        finished = num_before == len(source.keys) or score_missing(
            source, rewards, table, chosen.batch_size, chosen.address
        )
        num_scored = _report(table.merge(source.keys), out, num_before)
    if not finished:
        print("stopped; the same command goes on", file=sys.stderr)
        return INTERRUPTED
    return 0 if num_scored else NOTHING_SCORED


def located(reward: RewardConfig) -> RewardConfig:
    """Return the model with an absolute path if that is a local one: workers may be elsewhere."""
    import dataclasses

    if reward.path is None or not Path(reward.path).exists():
        return reward
    return dataclasses.replace(reward, path=str(Path(reward.path).absolute()))


def _report(table: pa.Table, out: Path, num_before: int) -> int:
    """Print counts, means and the first errors; return the number of videos with a score."""
    from statistics import fmean

    from videorl.data.score_table import dimension_names

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
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

r"""`videorl train_reward`: train a reward model on people's labels.

    videorl train_reward RECIPE [key=value ...]
    videorl train_reward video_reward labels.train=train.csv labels.held_out=test.csv
    videorl train_reward vision_reward --benchmark vision_reward_regression \
        --data VisionRewardDB-Video --scores answers.parquet --out weights.json

With a recipe, a network is trained on Ray; stop it at any moment and start the same command again:
it goes on from its last checkpoint. `vision_reward` fits VisionReward's linear weights to answers
that `videorl evaluate_reward --model vision_reward` gave with `rewards.0.options.questions=all`;
its options are listed by `videorl train_reward vision_reward --help`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.train import INTERRUPTED, lasting
from videorl.errors import VideorlError

LINEAR = "vision_reward"


def parser() -> argparse.ArgumentParser:
    """Return the command line of a recipe."""
    made = argparse.ArgumentParser(
        prog="videorl train_reward",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "recipe",
        help=f"the name of a shipped recipe, the path of a YAML file, or {LINEAR}",
    )
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, see videorl/reward_training/config.py",
    )
    made.add_argument("--address", help="a running Ray cluster; default: RAY_ADDRESS, or a new one")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run, or go on with, one training. Exit code 130 = stopped by a signal, can be continued."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == [LINEAR]:
        return _fit_vision_reward(given[1:])
    chosen = parser().parse_intermixed_args(given)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    from videorl.reward_training.recipes import load_reward_recipe

    recipe = load_reward_recipe(chosen.recipe, chosen.overrides)
    recipe.run_dir = str(lasting(Path(recipe.run_dir)))

    from actors.reward_training import train_reward
    from videorl.run.folder import open_run

    with open_run(recipe) as folder:
        finished = train_reward(recipe, folder, chosen.address)
    if not finished:
        print(f"stopped; the same command goes on with {folder.root}", file=sys.stderr)
        return INTERRUPTED
    print(f"trained reward model: {folder.reward}")
    return 0


def _fit_vision_reward(argv: Sequence[str]) -> int:
    made = argparse.ArgumentParser(
        prog=f"videorl train_reward {LINEAR}",
        description="Fit VisionReward's linear weights to labelled pairs; see docs/rewards.md.",
    )
    made.add_argument(
        "--benchmark", required=True, help="whose pairs are fitted, e.g. vision_reward_regression"
    )
    made.add_argument("--data", type=Path, required=True, help="its folder, as published")
    made.add_argument(
        "--scores", type=Path, required=True, help="Parquet file with answers to all 64 questions"
    )
    made.add_argument(
        "--ridge", type=float, default=1e-4, help="keeps weights finite (default: %(default)s)"
    )
    made.add_argument("--out", type=Path, required=True, help="JSON file of weights")
    chosen = made.parse_args(argv)

    from videorl.data.benchmarks import read_benchmark
    from videorl.data.score_reading import read_scores
    from videorl.reward_training.vision_reward_fit import fit_pairs, write_weights

    benchmark = read_benchmark(chosen.benchmark, chosen.data)
    fit = fit_pairs(benchmark.pairs, read_scores(chosen.scores).scores, ridge=chosen.ridge)
    write_weights(chosen.out, fit)
    accuracy = fit.accuracy.without_ties
    print(
        f"{fit.num_pairs} pairs fitted, {fit.num_ties} ties and {fit.num_skipped} without answers "
        f"left out; accuracy on them {accuracy:.1%}; weights: {chosen.out}"
    )
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

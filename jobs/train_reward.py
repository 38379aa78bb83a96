r"""`videorl train_reward`: train a reward model on people's labels.

    videorl train_reward RECIPE [key=value ...]
    videorl train_reward video_reward labels.train=train.csv labels.held_out=test.csv
    videorl train_reward vision_reward --benchmark vision_reward_regression \
        --data VisionRewardDB-Video --scores answers.parquet --out weights.json

With a recipe, a network is trained on Ray; stop it at any moment and start the same command again:
it goes on from its last checkpoint. `vision_reward` in place of a recipe fits VisionReward's linear
weights to answers that `videorl evaluate_reward --model vision_reward` gave with
`rewards.0.options.questions=all`; `videorl train_reward vision_reward --help` lists its options.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from jobs import command, places

LINEAR = "vision_reward"


def main(argv: Sequence[str] | None = None) -> int:
    """Start a training or go on with it. Exit code 130 = stopped, can be continued."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == [LINEAR]:
        return _fit_vision_reward(given[1:])
    parser = command.new_parser("videorl train_reward", __doc__)
    command.add_recipe(parser, "videorl/reward_training/config.py")
    command.add_address(parser)
    command.add_from_scratch(parser)
    command.add_change(parser)
    places.add_take_over(parser)
    options = parser.parse_intermixed_args(given)
    command.start_logging()

    from videorl.reward_training.recipes import load_reward_recipe

    changed = command.settings_of(options.change)
    recipe = load_reward_recipe(options.recipe, [*options.overrides, *options.change])
    recipe.run_dir = places.run_dir(recipe.run_dir)

    from actors.reward_training import train_reward
    from videorl.run.folder import open_run

    opened = open_run(
        recipe,
        from_scratch=options.from_scratch,
        change=changed,
        take_over=options.take_over,
    )
    with opened as folder:
        finished = train_reward(recipe, folder, options.address)
    if not finished:
        return command.stopped(recipe.run_dir)
    print(f"trained reward model: {folder.reward}")
    return 0


def _fit_vision_reward(argv: Sequence[str]) -> int:
    parser = command.new_parser(
        f"videorl train_reward {LINEAR}",
        "Fit VisionReward's linear weights to labelled pairs; see docs/rewards.md.",
    )
    text = "whose pairs are fitted, e.g. vision_reward_regression"
    parser.add_argument("--benchmark", required=True, help=text)
    parser.add_argument("--data", type=Path, required=True, help="its folder, as published")
    text = "Parquet file with answers to all 64 questions"
    parser.add_argument("--scores", type=Path, required=True, help=text)
    command.add_option(parser, "--ridge", 1e-4, "penalty of large weights, keeps them finite")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of weights")
    options = parser.parse_args(argv)

    from videorl.data.benchmarks import read_benchmark
    from videorl.data.score_reading import read_scores
    from videorl.reward_training.vision_reward_fit import fit_pairs, write_weights

    benchmark = read_benchmark(options.benchmark, options.data)
    command.output_file(options.out)
    fit = fit_pairs(benchmark.pairs, read_scores(options.scores).scores, ridge=options.ridge)
    write_weights(options.out, fit)
    accuracy = fit.accuracy.without_ties
    print(
        f"{fit.num_pairs} pairs fitted, {fit.num_ties} ties and {fit.num_skipped} without answers "
        f"left out; accuracy on them {accuracy:.1%}; weights: {options.out}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

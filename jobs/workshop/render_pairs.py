"""Make what the reward model of Moving Shapes is trained on: labelled pairs and an untrained base.

    python -m jobs.workshop.render_pairs --out runs/moving_shapes_pairs

It writes `train.csv` and `held_out.csv` with their videos, in the published columns of
VideoReward's labels, and `base/`, an untrained Qwen2-VL of 0.7 M parameters. Equal options give
equal files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs import command


def main(argv: Sequence[str] | None = None) -> int:
    """Write labels, videos and base."""
    parser = command.new_parser("python -m jobs.workshop.render_pairs", __doc__)
    text = "folder of the labels and videos; is created"
    parser.add_argument("--out", type=Path, required=True, help=text)
    command.add_option(parser, "--pairs", 8000, "labelled pairs to train on")
    command.add_option(parser, "--held-out", 512, "pairs of prompts never trained on")
    command.add_option(parser, "--same-band", 0.1, "margins below this count as a tie")
    command.add_option(parser, "--noise", 0.02, "share of training labels that are random")
    command.add_option(parser, "--seed", 0, "seed of clips, noise and weights")
    options = parser.parse_args(argv)
    command.output_folder(options.out)

    from videorl.pretraining.labelled_pairs import Raters, write_labelled_pairs
    from videorl.pretraining.reward_base import save_reward_base
    from videorl.run.progress import progress
    from videorl.worlds.grammar import Split

    save_reward_base(options.out / "base", options.seed)
    wanted: list[tuple[Split, int, float, int]] = [
        ("held_out", options.held_out, 0.0, options.seed + 1),
        ("train", options.pairs, options.noise, options.seed),
    ]
    for split, count, noise, seed in wanted:
        raters = Raters(options.same_band, noise)
        with progress(f"{split} pairs", count) as reach:
            path = options.out / f"{split}.csv"
            write_labelled_pairs(path, split, count, seed, raters, reach)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

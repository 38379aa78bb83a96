"""Make what the reward model of Moving Shapes is trained on: labelled pairs and an untrained base.

    python -m jobs.workshop.render_pairs --out runs/moving_shapes_pairs

Written are `train.csv` and `held_out.csv` with their videos, in the published columns of
VideoReward's labels, and `base/`, an untrained Qwen2-VL of 0.7 M parameters.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from jobs.workshop.pretrain import progress


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.workshop.render_pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--out", type=Path, required=True, help="folder of the labels and videos; is created"
    )
    made.add_argument(
        "--pairs", type=int, default=8000, help="labelled pairs to train on (default: %(default)s)"
    )
    made.add_argument(
        "--held-out",
        type=int,
        default=512,
        help="pairs of prompts never trained on (default: %(default)s)",
    )
    made.add_argument(
        "--same-band",
        type=float,
        default=0.1,
        help="margins below this count as a tie (default: %(default)s)",
    )
    made.add_argument(
        "--noise",
        type=float,
        default=0.02,
        help="share of random training labels (default: %(default)s)",
    )
    made.add_argument(
        "--seed", type=int, default=0, help="of clips, noise and weights (default: %(default)s)"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Write everything; equal options give equal files."""
    chosen = parser().parse_args(argv)

    from videorl.pretraining.labelled_pairs import Raters, write_labelled_pairs
    from videorl.pretraining.reward_base import save_reward_base
    from videorl.worlds.grammar import Split

    save_reward_base(chosen.out / "base", chosen.seed)
    wanted: list[tuple[Split, int, float, int]] = [
        ("held_out", chosen.held_out, 0.0, chosen.seed + 1),
        ("train", chosen.pairs, chosen.noise, chosen.seed),
    ]
    for name, count, noise, seed in wanted:
        raters = Raters(chosen.same_band, noise)
        with progress(f"{name} pairs", count) as on_step:
            path = chosen.out / f"{name}.csv"
            write_labelled_pairs(path, name, count, seed, raters, lambda n, on=on_step: on(n, 0.0))
    print(f"wrote {chosen.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""Make what a latent reward is trained on: samples of a policy, labelled by reward models.

    python -m jobs.workshop.label_latents moving_shapes --out runs/moving_shapes_latents
    python -m jobs.workshop.label_latents RECIPE --out FOLDER --candidates 4 rewards.0.path=PATH

Policy, sampling, prompts and reward models are those of a recipe for `videorl train`. Written are
`train.csv` and `held_out.csv`, with the label A, B, same or invalid of every two samples of a
prompt on every dimension, and the samples' latents. Start the same command again to go on.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.workshop.pretrain import progress
from videorl.errors import VideorlError


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="python -m jobs.workshop.label_latents",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("recipe", help="the name of a shipped recipe, or the path of a YAML file")
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, see videorl/config.py",
    )
    made.add_argument(
        "--out", type=Path, required=True, help="folder of the labels and latents; is created"
    )
    made.add_argument(
        "--prompts", type=int, help="at most so many prompts of each split (default: all)"
    )
    made.add_argument(
        "--candidates",
        type=int,
        default=8,
        help="samples of a training prompt (default: %(default)s)",
    )
    made.add_argument(
        "--held-out-candidates",
        type=int,
        default=4,
        help="samples of a held-out prompt (default: %(default)s)",
    )
    made.add_argument(
        "--same-band",
        type=float,
        default=0.1,
        help="margins below this count as a tie (default: %(default)s)",
    )
    made.add_argument(
        "--seed", type=int, default=0, help="of the initial noise (default: %(default)s)"
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Write everything; equal options give equal files."""
    chosen = parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    from videorl.recipes.reading import load_recipe

    recipe = load_recipe(chosen.recipe, chosen.overrides)

    from videorl.data.prompts import load_prompts
    from videorl.guidance.labelling import (
        dimension_scores,
        sample_scored_latents,
        write_pairs,
    )
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.rewards import load
    from videorl.worlds.grammar import Split

    models = {one.key: load(one.name, one.path, **one.options) for one in recipe.rewards}
    score = dimension_scores(models, recipe.rewards)
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, seed=recipe.seed)
    wanted: list[tuple[Split, str, int]] = [
        ("held_out", recipe.evaluation.source, chosen.held_out_candidates),
        ("train", recipe.prompts.source, chosen.candidates),
    ]
    for split, source, count in wanted:
        if not source:
            print(f"no {split} pairs: evaluation.source is not set")
            continue
        texts = [row.text for row in load_prompts(source, split)][: chosen.prompts]
        with progress(f"{split} prompts", len(texts)) as on_step:
            groups = sample_scored_latents(
                chosen.out / split,
                policy,
                score,
                texts,
                count,
                chosen.seed,
                lambda done, on=on_step: on(done, 0.0),
            )
        write_pairs(chosen.out / f"{split}.csv", groups, chosen.same_band)
    print(f"wrote {chosen.out}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

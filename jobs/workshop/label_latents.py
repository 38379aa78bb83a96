"""Make what a latent reward is trained on: samples of a policy, labelled by reward models.

    python -m jobs.workshop.label_latents moving_shapes --out runs/moving_shapes_latents
    python -m jobs.workshop.label_latents RECIPE --out FOLDER --candidates 4 rewards.0.path=PATH

Policy, sampling, prompts and reward models are those of a recipe for `videorl train`. It writes
`train.csv` and `held_out.csv`, with the label A, B, same or invalid of every two samples of a
prompt on every dimension, and the samples' latents. Equal options give equal files. Start the same
command again to go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.config import Recipe
    from videorl.types import Condition
    from videorl.worlds.grammar import Split


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("python -m jobs.workshop.label_latents", __doc__)
    command.add_recipe(parser, "videorl/config.py")
    text = "folder of the labels and latents; is created"
    parser.add_argument("--out", type=Path, required=True, help=text)
    text = "use at most so many prompts of each split (default: all)"
    parser.add_argument("--prompts", type=int, help=text)
    command.add_option(parser, "--candidates", 8, "samples of a training prompt")
    command.add_option(parser, "--held-out-candidates", 4, "samples of a held-out prompt")
    command.add_option(parser, "--same-band", 0.1, "margins below this count as a tie")
    command.add_option(parser, "--seed", 0, "seed of the initial noise")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Write labels and latents."""
    options = _parser().parse_intermixed_args(argv)
    command.start_logging()

    from videorl.recipes.reading import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    command.output_folder(options.out)

    from videorl.guidance.labelling import (
        VAE,
        check_settings,
        dimension_scores,
        sample_scored_latents,
        vae_digest,
        write_pairs,
    )
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.rewards import load
    from videorl.run.inputs import settings_of_samples
    from videorl.run.progress import progress

    settings = {**settings_of_samples(recipe), "seed": recipe.seed, "--seed": options.seed}
    settings[VAE] = vae_digest(recipe.policy.path)
    wanted: dict[str, tuple[list[Condition], int]] = {
        "held_out": (_prompts(recipe, "held_out"), options.held_out_candidates),
        "train": (_prompts(recipe, "train"), options.candidates),
    }
    check_settings(options.out, settings)
    models = {
        reward.key: load(reward.name, reward.path, **reward.options) for reward in recipe.rewards
    }
    score = dimension_scores(models, recipe.rewards)
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, seed=recipe.seed)
    for split, (prompts, count) in wanted.items():
        if not prompts:
            print(f"no {split} pairs: evaluation.source is not set")
            continue
        found, folder = prompts[: options.prompts], options.out / split
        with progress(f"{split} prompts", len(found)) as reach:
            groups = sample_scored_latents(folder, policy, score, found, count, options.seed, reach)
        write_pairs(options.out / f"{split}.csv", groups, options.same_band)
    print(f"wrote {options.out}")
    return 0


def _prompts(recipe: Recipe, split: Split) -> list[Condition]:
    """Return what to sample for, with pictures if the policy takes them; empty without a source.

    Raises:
        ConfigError: Prompts lack a picture, or have one in vain.
    """
    from videorl.data.prompts import evaluation_prompts, problem_of_images, training_prompts

    is_train = split == "train"
    name = "prompts" if is_train else "evaluation"
    if not is_train and not recipe.evaluation.source:
        return []
    rows = training_prompts(recipe) if is_train else evaluation_prompts(recipe)
    if problem := problem_of_images(rows, recipe.policy.family, f"{name}.source"):
        raise ConfigError(problem)
    return [row.prompt(0).condition for row in rows]


if __name__ == "__main__":
    raise SystemExit(command.run(main))

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

from jobs import command


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

    from videorl.config import EvaluationConfig, PromptsConfig
    from videorl.data.prompts import load_prompts
    from videorl.guidance.labelling import (
        VAE,
        check_settings,
        dimension_scores,
        sample_scored_latents,
        vae_digest,
        write_pairs,
    )
    from videorl.guidance.task import refuse_pictures
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.rewards import load
    from videorl.run.inputs import settings_of_samples
    from videorl.run.progress import progress
    from videorl.worlds.grammar import Split

    refuse_pictures(recipe.policy.family)
    settings = {**settings_of_samples(recipe), "seed": recipe.seed, "--seed": options.seed}
    settings[VAE] = vae_digest(recipe.policy.path)
    check_settings(options.out, settings)
    models = {
        reward.key: load(reward.name, reward.path, **reward.options) for reward in recipe.rewards
    }
    score = dimension_scores(models, recipe.rewards)
    policy = load_policy(recipe.policy, recipe.sampling, parts=PARTS, seed=recipe.seed)
    wanted: list[tuple[Split, EvaluationConfig | PromptsConfig, int]] = [
        ("held_out", recipe.evaluation, options.held_out_candidates),
        ("train", recipe.prompts, options.candidates),
    ]
    for split, prompts, count in wanted:
        if not prompts.source:
            print(f"no {split} pairs: evaluation.source is not set")
            continue
        rows = load_prompts(prompts.source, split, prompts.column)[: options.prompts]
        texts = [row.text for row in rows]
        folder = options.out / split
        with progress(f"{split} prompts", len(texts)) as reach:
            groups = sample_scored_latents(folder, policy, score, texts, count, options.seed, reach)
        write_pairs(options.out / f"{split}.csv", groups, options.same_band)
    print(f"wrote {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

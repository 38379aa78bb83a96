r"""`videorl sample`: videos from a diffusers pipeline, with or without aligned weights.

    videorl sample "a large red circle moving left" "a small blue square moving up" --num 4
    videorl sample "a large red circle moving left" --lora runs/moving_shapes/aligned
    videorl sample "a large red circle moving left" --latent-reward runs/NAME/reward \
        --guide motion_quality=1 --guide text_alignment=0.5

`--guide` steers every denoising step by a latent reward (Flow-NRG, see docs/algorithms.md), which
`videorl train_latent_reward` trains; weights are chosen per call, nothing is trained for them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from videorl.errors import ConfigError, VideorlError


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl sample",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("prompts", nargs="+", metavar="PROMPT", help="text of a video")
    made.add_argument(
        "--recipe",
        default="moving_shapes",
        help="name or path of the recipe whose policy and sampling settings are used "
        "(default: %(default)s)",
    )
    made.add_argument("--lora", help="folder of aligned LoRA weights, e.g. runs/NAME/aligned")
    made.add_argument(
        "--out",
        type=Path,
        default=Path("samples"),
        help="folder of the mp4 files (default: %(default)s)",
    )
    made.add_argument("--num", type=int, default=1, help="videos per prompt (default: %(default)s)")
    made.add_argument(
        "--seed", type=int, default=0, help="of the initial noise (default: %(default)s)"
    )
    made.add_argument(
        "--latent-reward",
        type=Path,
        help="folder of a trained latent reward, e.g. runs/NAME/reward",
    )
    made.add_argument(
        "--guide",
        action="append",
        default=[],
        metavar="DIMENSION=WEIGHT",
        help="how strongly to raise one of its dimensions; may be repeated",
    )
    made.add_argument(
        "--max-factor",
        type=float,
        help="where guidance's factor, t/(1-t) for Wan, is cut off near noise (default: 10)",
    )
    made.add_argument(
        "--set",
        nargs="*",
        default=[],
        metavar="KEY=VALUE",
        help="settings of the recipe to change; comes last",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Sample with the same policy code that generators run; print where each video lies."""
    chosen = parser().parse_intermixed_args(argv)

    from videorl.guidance.config import parse_weights, read_config
    from videorl.recipes.reading import load_recipe
    from videorl.settings.bounds import above, at_least

    if (chosen.latent_reward is None) != (not chosen.guide):
        raise ConfigError("--latent-reward and --guide go together, got only one of them")
    if problem := at_least("--num", chosen.num, 1):
        raise ConfigError(problem)
    if chosen.max_factor is not None:
        if not chosen.guide:
            raise ConfigError("--max-factor is for guidance, but there is no --guide")
        if problem := above("--max-factor", chosen.max_factor, 0):
            raise ConfigError(problem)
    overrides = [*chosen.set, *([f"policy.lora.initial={chosen.lora}"] if chosen.lora else [])]
    recipe = load_recipe(chosen.recipe, overrides)
    weights = parse_weights(chosen.guide, read_config(chosen.latent_reward)) if chosen.guide else {}

    import torch

    from videorl.data.video_io import write_mp4
    from videorl.guidance.flow_nrg import MAX_FACTOR
    from videorl.guidance.latent_reward import load_latent_reward
    from videorl.guidance.sampler import GuidedSampler
    from videorl.policies import load_policy
    from videorl.policies.pipeline_policy import PipelinePolicy
    from videorl.seeds import derive_seed

    # First, as it knows of which policy it is.
    reward = (
        load_latent_reward(chosen.latent_reward, recipe.policy, recipe.sampling)
        if weights
        else None
    )
    policy = load_policy(
        recipe.policy,
        recipe.sampling,
        parts=frozenset({"transformer", "vae", "text_encoder"}),
        seed=recipe.seed,
    )
    sampler = policy
    if reward is not None:
        assert isinstance(policy, PipelinePolicy)
        max_factor = MAX_FACTOR if chosen.max_factor is None else chosen.max_factor
        sampler = GuidedSampler(policy, reward, weights, max_factor=max_factor)
    negative = policy.encode([recipe.sampling.negative_prompt])[0]
    chosen.out.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for number, prompt in enumerate(chosen.prompts):
            seeds = [derive_seed(chosen.seed, "sample", prompt, one) for one in range(chosen.num)]
            latents = sampler.sample(policy.encode([prompt])[0], negative, seeds)
            for index, video in enumerate(policy.decode(latents)):
                path = chosen.out / f"{number:03d}-{index:02d}.mp4"
                write_mp4(path, video)
                print(f"{path}  {prompt}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

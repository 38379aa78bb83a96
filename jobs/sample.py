r"""`videorl sample`: videos from a diffusers pipeline, with or without aligned weights.

    videorl sample "a large red circle moving left" "a small blue square moving up" --num 4
    videorl sample "a large red circle moving left" --lora runs/moving_shapes/aligned
    videorl sample --prompts prompts.txt --out samples
    videorl sample "a large red circle moving left" --run runs/moving_shapes --step 40
    videorl sample "a cat turns its head" --image cat.png --recipe wan_2_1_i2v_14b_480p
    videorl sample "a large red circle moving left" --latent-reward runs/NAME/reward \
        --guide motion_quality=1 --guide text_alignment=0.5

`--guide` steers every denoising step by a latent reward (Flow-NRG, see docs/algorithms.md), which
`videorl train_latent_reward` trains. Weights are chosen for each call, without further training.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs import command, places
from jobs.results import Show, add_json, results
from videorl.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from videorl.config import Recipe
    from videorl.data.prompt_rows import PromptRow
    from videorl.protocols import Policy
    from videorl.types import Condition


logger = logging.getLogger(__name__)


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl sample", __doc__)
    parser.add_argument("texts", nargs="*", metavar="PROMPT", help="text of a video")
    text = "a file of prompts, as `prompts.source` of a recipe: text, CSV, JSON or Parquet"
    parser.add_argument("--prompts", type=Path, metavar="FILE", help=text)
    command.add_option(parser, "--column", "prompt", "where a table of --prompts has them")
    text = "picture that videos of the PROMPTs begin with; those of --prompts have their own"
    parser.add_argument("--image", type=Path, metavar="FILE", help=text)
    text = "name or path of the recipe whose policy and sampling settings are used"
    command.add_option(parser, "--recipe", "moving_shapes", text)
    parser.add_argument("--lora", help="folder of aligned LoRA weights, e.g. runs/NAME/aligned")
    text = "folder or URI of a run: its recipe, and the weights of a checkpoint that it has kept"
    parser.add_argument("--run", type=places.place, metavar="FOLDER", help=text)
    text = "step of that checkpoint (default: the newest)"
    parser.add_argument("--step", type=int, metavar="N", help=text)
    command.add_option(parser, "--out", Path("samples"), "folder of the mp4 files")
    command.add_option(parser, "--num", 1, "videos per prompt")
    command.add_option(parser, "--seed", 0, "seed of the initial noise")
    text = "folder or URI of a trained latent reward, e.g. runs/NAME/reward"
    parser.add_argument("--latent-reward", type=places.place, help=text)
    parser.add_argument(
        "--guide",
        action="append",
        default=[],
        metavar="DIMENSION=WEIGHT",
        help="how strongly to raise one of its dimensions; may be repeated",
    )
    text = "where guidance's factor, t/(1-t) for Wan, is cut off near noise (default: 10)"
    parser.add_argument("--max-factor", type=float, help=text)
    add_json(parser)
    text = "settings of the recipe to change; comes last"
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help=text)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Sample with the same policy code as generators; print the path of each video."""
    options = _parser().parse_intermixed_args(argv)
    if options.run:
        options.run = places.here(options.run)
    _check(options)
    command.output_folder(options.out)
    command.start_logging()
    rows = _rows(options)
    if options.latent_reward:
        options.latent_reward = places.here(options.latent_reward)
    if options.lora:
        options.lora = str(places.here(places.place(options.lora)))

    from videorl.data.prompts import problem_of_images
    from videorl.files.pins import pin_settings
    from videorl.guidance.config import parse_weights, read_config
    from videorl.recipes.overrides import Override
    from videorl.recipes.reading import load_recipe
    from videorl.run.compute_type import as_in_run_of
    from videorl.run.pins import policy_settings

    lora = [Override("policy.lora.initial", options.lora)] if options.lora else []
    name = str(options.run / "config.yaml") if options.run else options.recipe
    recipe = load_recipe(name, [*options.set, *lora])
    recipe = as_in_run_of(recipe, [name, options.lora])
    if problem := problem_of_images(rows, recipe.policy.family):
        raise ConfigError(f"{problem}; texts take --image")
    pin_settings(policy_settings(recipe), {})  # a wrong id is an error before anything is loaded
    is_guided = bool(options.guide)
    weights = parse_weights(options.guide, read_config(options.latent_reward)) if is_guided else {}
    with results(options) as show:
        _sample(recipe, weights, [row.prompt(0).condition for row in rows], options, show)
    return 0


def _rows(options: argparse.Namespace) -> list[PromptRow]:
    """Return the prompts that were typed, then those of the file."""
    from videorl.data.prompt_files import read_prompts
    from videorl.data.prompt_rows import PromptRow

    for text in options.texts:
        if Path(text).suffix and os.path.isfile(text):
            raise ConfigError(f"{text} is a file; give the prompts in it by --prompts {text}")
    if options.image and not options.texts:
        raise ConfigError("--image is the picture of texts, but there is none")
    image = str(options.image.absolute()) if options.image else ""
    typed = [PromptRow(text, image=image) for text in options.texts]
    rows = read_prompts(options.prompts, options.column) if options.prompts else []
    if not (typed or rows):
        raise ConfigError("there is no prompt: give texts, or --prompts FILE")
    return [*typed, *rows]


def _check(options: argparse.Namespace) -> None:
    """Refuse options that contradict each other before anything is loaded."""
    from videorl.settings.bounds import above, at_least

    if options.step is not None and not options.run:
        raise ConfigError("--step is of a run: give --run FOLDER too")
    if options.run and options.lora:
        raise ConfigError("--run has weights of its own: leave --lora out")
    if options.run and not (options.run / "config.yaml").is_file():
        raise ConfigError(f"--run: {options.run} is no run folder, it has no config.yaml")
    if (options.latent_reward is None) != (not options.guide):
        raise ConfigError("--latent-reward and --guide go together, got only one of them")
    if problem := at_least("--num", options.num, 1):
        raise ConfigError(problem)
    if options.max_factor is not None:
        if not options.guide:
            raise ConfigError("--max-factor is for guidance, but there is no --guide")
        if problem := above("--max-factor", options.max_factor, 0):
            raise ConfigError(problem)


def _policy(recipe: Recipe, options: argparse.Namespace) -> Policy:
    """Return the recipe's policy, with the weights that the options name."""
    from videorl.policies import load_policy
    from videorl.policies.checkpoints import PARTS
    from videorl.run.kept_policy import load_kept_policy

    if not options.run:
        return load_policy(recipe.policy, recipe.sampling, parts=PARTS, seed=recipe.seed)
    policy, version = load_kept_policy(recipe, options.run, options.step, PARTS)
    logger.info("sampling with the weights of step %d", version.step)
    return policy


def _sample(
    recipe: Recipe,
    weights: dict[str, float],
    prompts: list[Condition],
    options: argparse.Namespace,
    show: Show,
) -> None:
    """Write the videos of all prompts.

    Args:
        recipe: Whose policy and sampling settings are used.
        weights: Of the latent reward's dimensions; empty = without guidance.
        prompts: Texts, perhaps with pictures; those that cannot be encoded are logged and left out.
        options: Of the command.
        show: Prints the result.

    Raises:
        PromptError: No prompt can be encoded.
    """
    from videorl.data.video_io import write_mp4
    from videorl.guidance.flow_nrg import MAX_FACTOR
    from videorl.guidance.latent_reward import load_latent_reward
    from videorl.guidance.sampler import GuidedSampler
    from videorl.policies.pipeline_policy import PipelinePolicy
    from videorl.run.progress import progress
    from videorl.sampling.videos import sample_videos

    reward = None
    if weights:  # loaded before the policy: a reward of another policy is refused at once
        reward = load_latent_reward(options.latent_reward, recipe.policy, recipe.sampling)
    sampler = policy = _policy(recipe, options)
    if reward is not None:
        assert isinstance(policy, PipelinePolicy)
        max_factor = MAX_FACTOR if options.max_factor is None else options.max_factor
        sampler = GuidedSampler(policy, reward, weights, max_factor=max_factor)
    refused: list[PromptError] = []
    negative_prompt = recipe.sampling.negative_prompt
    videos = sample_videos(
        policy,
        prompts,
        negative_prompt=negative_prompt,
        num=options.num,
        seed=options.seed,
        sampler=sampler,
        on_refused=refused.append,
    )
    written: list[dict[str, str]] = []
    with progress("prompts", len(prompts)) as reach:
        for number, (prompt, of_prompt) in enumerate(zip(prompts, videos, strict=True)):
            text = prompt if isinstance(prompt, str) else prompt.text
            for index, video in enumerate(of_prompt):
                path = options.out / f"{number:03d}-{index:02d}.mp4"
                write_mp4(path, video)
                written.append({"file": str(path), "prompt": text})
                if not options.json:
                    print(f"{path}  {text}", flush=True)
            if not of_prompt:
                logger.warning("left out: %s", refused[-1])
            reach(number + 1)
    if len(refused) == len(prompts):
        raise refused[-1]
    if options.json:
        show(written, "")


if __name__ == "__main__":
    raise SystemExit(command.run(main))

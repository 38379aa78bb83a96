"""`videorl train_latent_reward`: train a reward on noisy latents, for guided sampling (Flow-NRG).

    videorl train_latent_reward RECIPE [key=value ...]
    videorl train_latent_reward moving_shapes num_steps=100 run_dir=runs/short

It trains in this process, on labelled pairs that `python -m jobs.workshop.label_latents` makes.
Stop it at any moment and start the same command again: it goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from jobs.train import INTERRUPTED, lasting
from videorl.errors import VideorlError


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl train_latent_reward",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "recipe",
        help="the name of a shipped recipe, or the path of a YAML file",
    )
    made.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="settings to change, see videorl/guidance/recipe.py",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run, or go on with, one training. Exit code 130 = stopped by a signal, can be continued."""
    chosen = parser().parse_intermixed_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")

    from videorl.guidance.recipe import load_latent_reward_recipe

    recipe = load_latent_reward_recipe(chosen.recipe, chosen.overrides)
    recipe.run_dir = str(lasting(Path(recipe.run_dir)))

    from videorl.guidance.fit import train_latent_reward
    from videorl.run.folder import open_run
    from videorl.run.stopping import stop_on_signal

    with open_run(recipe) as folder, stop_on_signal() as should_stop:
        finished = train_latent_reward(recipe, folder, should_stop)
    if not finished:
        print(f"stopped; the same command goes on with {folder.root}", file=sys.stderr)
        return INTERRUPTED
    print(f"trained latent reward: {folder.reward}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

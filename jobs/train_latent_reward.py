"""`videorl train_latent_reward`: train a reward on noisy latents, for guided sampling (Flow-NRG).

    videorl train_latent_reward RECIPE [key=value ...]
    videorl train_latent_reward moving_shapes num_steps=100 run_dir=runs/short

It trains in this process, on labelled pairs that `python -m jobs.workshop.label_latents` makes.
Stop it at any moment and start the same command again: it goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs import command, places


def main(argv: Sequence[str] | None = None) -> int:
    """Start a training or go on with it. Exit code 130 = stopped, can be continued."""
    parser = command.new_parser("videorl train_latent_reward", __doc__)
    command.add_recipe(parser, "videorl/guidance/recipe.py")
    command.add_from_scratch(parser)
    command.add_change(parser)
    places.add_take_over(parser)
    options = parser.parse_intermixed_args(argv)
    command.start_logging()

    from videorl.guidance.recipe import load_latent_reward_recipe

    changed = command.settings_of(options.change)
    recipe = load_latent_reward_recipe(options.recipe, [*options.overrides, *options.change])
    recipe.run_dir = places.run_dir(recipe.run_dir)

    from videorl.guidance.fit import train_latent_reward
    from videorl.run.folder import open_run
    from videorl.run.stopping import stop_on_signal

    opened = open_run(
        recipe,
        from_scratch=options.from_scratch,
        change=changed,
        take_over=options.take_over,
    )
    with opened as folder, stop_on_signal() as should_stop:
        finished = train_latent_reward(recipe, folder, should_stop)
    if not finished:
        return command.stopped(recipe.run_dir)
    print(f"trained latent reward: {folder.reward}")
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

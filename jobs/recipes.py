"""`videorl recipes`: list the shipped recipes, or print a recipe with every setting.

    videorl recipes
    videorl recipes moving_shapes_refl optimizer.learning_rate=3e-4
    videorl recipes path/to/recipe.yaml > resolved.yaml

A printed recipe is YAML. After each value a comment says where it comes from: `default`, `family`
with its name where the policy's has a default of its own, the file that sets it (the recipe's own
or one of its bases), or `override`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs import command
from videorl.recipes.kinds import FOLDERS, headline, shipped

if TYPE_CHECKING:
    from videorl.recipes.explained import Kind


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list, or a recipe."""
    parser = command.new_parser("videorl recipes", __doc__)
    text = "the name of a shipped recipe, or the path of a YAML file"
    parser.add_argument("recipe", nargs="?", help=text)
    command.add_overrides(parser, "settings to change")
    parser.add_argument(
        "--for",
        dest="command",
        choices=FOLDERS,
        help="recipes of this command alone; needed where two commands have one of the same name",
    )
    options = parser.parse_intermixed_args(argv)
    if options.recipe is None:
        print(listing(options.command))
        return 0

    from videorl.recipes.explained import explained, find_any

    wanted = [kind for kind in kinds() if options.command in (None, kind.command)]
    print(explained(*find_any(wanted, options.recipe), options.overrides))
    return 0


def kinds() -> list[Kind]:
    """Return every kind of recipe, with what reads it."""
    from videorl.config import Recipe
    from videorl.guidance.recipe import LatentRewardRecipe, load_latent_reward_recipe
    from videorl.recipes.explained import Kind
    from videorl.recipes.reading import load_recipe
    from videorl.reward_training.config import RewardRecipe
    from videorl.reward_training.recipes import load_reward_recipe

    return [
        Kind(Recipe, load_recipe),
        Kind(RewardRecipe, load_reward_recipe),
        Kind(LatentRewardRecipe, load_latent_reward_recipe),
    ]


def listing(command: str | None) -> str:
    """Return, for each shipped recipe, its command, what it is, and how far it was verified."""
    entries: list[str] = []
    for reader in FOLDERS if command is None else (command,):
        for path in shipped(reader):
            description, verified = headline(path)
            entries.append(
                f"videorl {reader} {path.stem}\n    {description}\n    Verified: {verified}"
            )
    return "\n".join(entries)


if __name__ == "__main__":
    raise SystemExit(command.run(main))

"""`videorl recipes`: list the shipped recipes, or print a recipe with every setting.

    videorl recipes
    videorl recipes moving_shapes_refl optimizer.learning_rate=3e-4
    videorl recipes path/to/recipe.yaml > resolved.yaml

A printed recipe is YAML. After each value a comment says where it comes from: `default`, `family`
with its name where the policy's has a default of its own, the file that sets it (the recipe's own
or one of its bases), or `override`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jobs import command
from jobs.results import add_json, results
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
    add_json(parser)
    options = parser.parse_intermixed_args(argv)
    with results(options) as show:
        if options.recipe is None:
            known = entries(options.command)
            show(known, listing(known))
            return 0

        from videorl.files import parse_yaml
        from videorl.recipes.explained import explained, find_any

        wanted = [kind for kind in kinds() if options.command in (None, kind.command)]
        text = explained(*find_any(wanted, options.recipe), options.overrides)
        show(parse_yaml(text), text)
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


def entries(command: str | None) -> list[dict[str, str]]:
    """Return, for each shipped recipe, its command, what it is, and how far it was verified."""
    found: list[dict[str, str]] = []
    for reader in FOLDERS if command is None else (command,):
        for path in shipped(reader):
            description, verified = headline(path)
            found.append(
                {
                    "command": reader,
                    "recipe": path.stem,
                    "description": description,
                    "verified": verified,
                }
            )
    return found


def listing(known: Sequence[Mapping[str, str]]) -> str:
    """Return what `entries` found as text."""
    return "\n".join(
        f"videorl {one['command']} {one['recipe']}\n    {one['description']}\n"
        f"    Verified: {one['verified']}"
        for one in known
    )


if __name__ == "__main__":
    raise SystemExit(command.run(main))

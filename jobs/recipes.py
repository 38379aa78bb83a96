"""`videorl recipes`: list the shipped recipes, or print a recipe with every setting.

    videorl recipes
    videorl recipes moving_shapes_refl optimizer.learning_rate=3e-4
    videorl recipes path/to/recipe.yaml > resolved.yaml

A printed recipe is YAML. After each value a comment says where it comes from: `default`, the file
that sets it (the recipe's own or one of its bases), or `override`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from videorl.errors import VideorlError
from videorl.recipes.kinds import KINDS, headline


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    made = argparse.ArgumentParser(
        prog="videorl recipes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "recipe", nargs="?", help="the name of a shipped recipe, or the path of a YAML file"
    )
    made.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    made.add_argument(
        "--for",
        dest="command",
        choices=[kind.command for kind in KINDS],
        help="recipes of this command alone; needed where two commands have one of the same name",
    )
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Print the list, or a recipe."""
    chosen = parser().parse_intermixed_args(argv)
    if chosen.recipe is None:
        print(listing(chosen.command))
        return 0

    from videorl.recipes.explained import explained, find_any

    print(explained(*find_any(chosen.recipe, chosen.command), chosen.overrides))
    return 0


def listing(command: str | None) -> str:
    """Return, for each shipped recipe, its command, what it is, and how far it was verified."""
    entries: list[str] = []
    for kind in KINDS:
        for path in kind.shipped() if command in (None, kind.command) else ():
            description, verified = headline(path)
            entries.append(
                f"videorl {kind.command} {path.stem}\n    {description}\n    Verified: {verified}"
            )
    return "\n".join(entries)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except VideorlError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)

r"""`videorl fetch`: download what a recipe takes from the Hugging Face hub, before a run needs it.

    videorl fetch wan_1_3b_three_rewards
    videorl fetch RECIPE policy.path=owner/name@v1.0

Only files that are read come, into the cache of the hub's library (HF_HOME). Stopped in the middle,
the same command goes on. Then a node needs no network: set HF_HUB_OFFLINE=1 there.
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs import command
from videorl.errors import ConfigError


def main(argv: Sequence[str] | None = None) -> int:
    """Download what is missing; print what was there, what came, and what other nodes need."""
    parser = command.new_parser("videorl fetch", __doc__)
    command.add_recipe(parser, "videorl/config.py")
    options = parser.parse_intermixed_args(argv)
    command.start_logging()

    from videorl.files import hub
    from videorl.files.content import bytes_in_words
    from videorl.recipes.reading import load_recipe
    from videorl.run.downloads import downloads
    from videorl.run.pins import hub_settings

    recipe = load_recipe(options.recipe, options.overrides)
    if hub.is_offline() and any(hub_settings(recipe)):
        raise ConfigError("HF_HUB_OFFLINE=1 forbids downloads: unset it to fetch")
    found = downloads(recipe)
    for each in found:
        here, missing = (bytes_in_words(size) for size in (each.bytes_here, each.bytes_missing))
        print(f"{each.key}: {each.name}: {here} here, {missing} to download", flush=True)
    if not found:
        print("nothing to fetch: everything that the recipe names is on this machine")
        return 0
    for each in found:
        folder = hub.download(each.name, each.files, each.key)
        print(f"{each.key}: {folder}", flush=True)
    settings = " ".join(f"{each.key}={each.name}" for each in found)
    print(
        "On other nodes: run the same command, or copy the cache (HF_HOME) there; then set "
        f"HF_HUB_OFFLINE=1. These commits, whatever is pushed later: {settings}"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(command.run(main))

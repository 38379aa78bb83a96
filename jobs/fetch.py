r"""`videorl fetch`: download what comes from the Hugging Face hub, before a run needs it.

    videorl fetch wan_1_3b_three_rewards
    videorl fetch RECIPE policy.path=owner/name@v1.0
    videorl fetch my_reward.yaml                     # a recipe of any command that trains
    videorl fetch --policy owner/name@v1.0 --reward video_reward --reward pick_score=owner/name

Only files that are read come, into the cache of the hub's library (HF_HOME). Stopped in the middle,
the same command goes on. Then a node needs no network: set HF_HUB_OFFLINE=1 there.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jobs import command
from jobs.results import Show, add_json, results
from videorl.errors import ConfigError
from videorl.recipes.kinds import FOLDERS

if TYPE_CHECKING:
    from videorl.files.pins import HubSetting
    from videorl.run.downloads import Download


def _parser() -> argparse.ArgumentParser:
    parser = command.new_parser("videorl fetch", __doc__)
    text = "the name of a shipped recipe, or the path of a YAML file"
    parser.add_argument("recipe", nargs="?", help=text)
    text = "settings to change; without a recipe, of models: rewards.N.key=value"
    command.add_overrides(parser, text)
    text = "which command reads the recipe; needed where two have one of the same name"
    parser.add_argument("--for", dest="command", choices=FOLDERS, help=text)
    text = "hub id of a policy; may be repeated"
    parser.add_argument("--policy", action="append", default=[], metavar="ID", help=text)
    command.add_models(parser, "--reward")
    add_json(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Download what is missing; print what was there, what came, and what other nodes need."""
    options = _parser().parse_intermixed_args(argv)
    command.start_logging()
    if options.recipe and "=" in options.recipe:
        options.recipe, options.overrides = None, [options.recipe, *options.overrides]
    if not (options.recipe or options.policy or options.reward):
        raise ConfigError("give a recipe, --policy ID or --reward NAME[=PATH]")

    with results(options) as show:
        _fetch(_downloads(options), show)
    return 0


def _fetch(found: Sequence[Download], show: Show) -> None:
    """Download; what comes and has come is printed meanwhile, and for programs at the end."""
    from videorl.files import hub
    from videorl.files.content import bytes_in_words

    for each in found:
        here, missing = (bytes_in_words(size) for size in (each.bytes_here, each.bytes_missing))
        print(f"{each.key}: {each.name}: {here} here, {missing} to download", flush=True)
    if not found:
        show([], "nothing to fetch: everything that was named is on this machine")
        return
    fetched: list[dict[str, object]] = []
    for each in found:
        folder = hub.download(each.name, each.files, each.key)
        hub.remember(each.asked, folder.name)
        print(f"{each.key}: {folder}", flush=True)
        sizes = {"bytes_here": each.bytes_here, "bytes_downloaded": each.bytes_missing}
        fetched.append({"key": each.key, "id": str(each.name), "folder": str(folder), **sizes})
    settings = " ".join(f"{each.key}={each.name}" for each in found)
    show(
        fetched,
        "On other nodes: run the same command, or copy the cache (HF_HOME) there; then set "
        f"HF_HUB_OFFLINE=1. These commits, whatever is pushed later: {settings}",
    )


def _downloads(options: argparse.Namespace) -> list[Download]:
    """Return what a recipe, and what is named without one, takes from the hub.

    Raises:
        ConfigError: Downloads are forbidden, or something that is named does not exist.
        CheckpointError: The hub refuses something, or does not answer.
    """
    from videorl.files import hub
    from videorl.recipes.explained import find_any
    from videorl.run.downloads import downloads, downloads_of_recipe
    from videorl.run.pins import hub_settings

    recipe = None
    if options.recipe:
        from jobs.recipes import kinds

        wanted = [kind for kind in kinds() if options.command in (None, kind.command)]
        kind, path = find_any(wanted, options.recipe)
        recipe = kind.load(str(path), options.overrides)
    named = list(_named(options))
    if hub.is_offline() and (named or (recipe is not None and any(hub_settings(recipe)))):
        raise ConfigError("HF_HUB_OFFLINE=1 forbids downloads: unset it to fetch")
    return [*(downloads_of_recipe(recipe) if recipe is not None else ()), *downloads(named)]


def _named(options: argparse.Namespace) -> Iterator[HubSetting]:
    """Yield the repositories of `--policy` and `--reward`; what is on this machine has none."""
    from videorl.files import hub
    from videorl.files.pins import HubSetting
    from videorl.policies.checkpoints import SHIPPED
    from videorl.recipes.reading import load_rewards
    from videorl.rewards.hub_places import reward_settings
    from videorl.run.downloads import POLICY

    for text in options.policy:
        if text in SHIPPED or hub.local_path(text).exists():
            continue
        if (name := hub.parse(text)) is None or name.file:
            raise ConfigError(f"--policy must be a hub id (owner/name[@revision]), got {text!r}")
        yield HubSetting(POLICY, name, lambda _: None)
    if options.reward:
        overrides = () if options.recipe else options.overrides
        yield from reward_settings(load_rewards(options.reward, None, overrides))


if __name__ == "__main__":
    raise SystemExit(command.run(main))

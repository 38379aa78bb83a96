"""`videorl completion`: what a shell needs to complete commands, options, recipes and settings.

    videorl completion bash > ~/.local/share/bash-completion/completions/videorl
    videorl completion zsh > ~/.zfunc/_videorl
    videorl completion fish > ~/.config/fish/completions/videorl.fish

Prints a script, which is a list of words: nothing of videorl runs while you type. Print it anew
after an upgrade.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jobs import command
from videorl.recipes.kinds import FOLDERS, shipped

SHELLS = ("bash", "zsh", "fish")
WITHOUT_SPACE = """
_videorl() {
  _shtab_videorl "$@"
  [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
}
complete -o bashdefault -F _videorl videorl
"""
"""For bash: no space after `key=`."""


def main(argv: Sequence[str] | None, commands: Mapping[str, tuple[str, str]]) -> int:
    """Print the script.

    Args:
        argv: The arguments.
        commands: Every command of `videorl` with its module and its summary.
    """
    parser = command.new_parser("videorl completion", __doc__)
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
    options = parser.parse_args(argv)
    import shtab

    script = shtab.complete(whole(commands), shell=options.shell)
    print(script + WITHOUT_SPACE if options.shell == "bash" else script)
    return 0


def whole(commands: Mapping[str, tuple[str, str]]) -> argparse.ArgumentParser:
    """Return a parser that has the parser of every command, and knows what completes them."""
    parser = argparse.ArgumentParser(prog="videorl")
    added = parser.add_subparsers(dest="command")
    for name, (module, summary) in commands.items():
        if name == "completion":
            own = argparse.ArgumentParser()
            own.add_argument("shell", choices=SHELLS)
        else:
            own = command.parser_of(importlib.import_module(module).main)
        # `%` is special in a help text that stands below another parser.
        help_text = summary.replace("%", "%%")
        added.add_parser(name, parents=[own], add_help=False, help=help_text)
        for action in own._actions:  # argparse has no public way to look at them
            _complete(name, action)
    return parser


def _complete(name: str, action: argparse.Action) -> None:
    """Say what completes an argument of a command, where that is known."""
    import shtab

    reader = name if name in FOLDERS else None
    if action.dest in ("recipe", "rewards"):
        words = [path.stem for each in ([reader] if reader else FOLDERS) for path in shipped(each)]
        _attach(action, _choice(f"{name}_recipes", words, "compgen -f -X '!*.y*ml' -- \"$1\""))
    elif action.dest == "overrides":
        words = [f"{setting}=" for setting in settings(reader or "train")]
        _attach(action, _choice(f"{reader or 'train'}_settings", words))
    elif action.type is Path:
        _attach(action, shtab.FILE)


def settings(reader: str) -> list[str]:
    """Return the dotted names of the settings of recipes that a command reads.

    Where a section chooses among classes, as `objective` does, they are those of all of them.
    """
    from jobs.recipes import kinds
    from videorl.recipes.choices import choices, default_settings
    from videorl.recipes.schema import setting_names

    schema = next(kind.schema for kind in kinds() if kind.command == reader)
    chosen = [key for item in choices(schema).items() for key, _ in default_settings(*item)]
    return list(dict.fromkeys([*setting_names(schema), *chosen]))


def _choice(name: str, words: Sequence[str], more: str = "true") -> dict[str, Any]:
    """Return how each shell completes words; `more` is what bash runs for others."""
    listed = " ".join(dict.fromkeys(words))
    function = f"_videorl_{name}"
    body = f'{function}() {{\n  compgen -W "{listed}" -- "$1"\n  {more}\n}}\n'
    return {"bash": function, "zsh": f"({listed})", "fish": listed, "preamble": {"bash": body}}


def _attach(action: argparse.Action, how: Any) -> None:
    action.complete = how  # type: ignore[attr-defined]  # where shtab looks for it


if __name__ == "__main__":
    # Only `videorl` knows all commands.
    raise SystemExit("error: it is started as `videorl completion SHELL`")

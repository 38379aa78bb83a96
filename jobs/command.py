"""How every command begins and ends: its options, its log, its errors and its exit codes."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from jobs.exit_codes import ExitCode, code_of
from videorl.errors import ConfigError

if TYPE_CHECKING:
    from videorl.config import RewardConfig

_GIVE_PARSER = "--_parser"
"""Makes a command raise its parser, once all arguments are added; not for people."""


class _ParserError(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__("a parser that was asked for")
        self.parser = parser


def new_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the description, a module's docstring, as it is."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog=prog, description=description, formatter_class=formatter)

    def give(_: str) -> NoReturn:
        raise _ParserError(parser)

    parser.add_argument(_GIVE_PARSER, type=give, help=argparse.SUPPRESS)
    return parser


def parser_of(main: Callable[[Sequence[str] | None], int], *first: str) -> argparse.ArgumentParser:
    """Return the parser that a command makes, without running the command.

    Args:
        main: The command.
        first: Arguments before, where these choose among parsers.

    Raises:
        LookupError: Its parser is not from `new_parser`.
    """
    try:
        main([*first, _GIVE_PARSER, ""])
    except _ParserError as found:
        return found.parser
    raise LookupError(f"{main.__module__} has no parser of jobs.command.new_parser")


def add_option(
    parser: argparse.ArgumentParser, flag: str, default: Any, text: str, **others: Any
) -> None:
    """Add an option that has the type of its default, which its help shows.

    Args:
        parser: Gets the option.
        flag: Such as `--prompts`.
        default: A list makes it an option of one or more values, of the type of the first.
        text: The help without the default.
        others: Further arguments of `add_argument`.
    """
    if isinstance(default, list):
        others |= {"nargs": "+", "type": type(default[0])}
    text += " (default: %(default)s)"
    parser.add_argument(flag, **{"type": type(default), "default": default, "help": text, **others})


def add_overrides(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `key=value` arguments, which may stand anywhere if `parse_intermixed_args` reads them."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=text)


def add_recipe(parser: argparse.ArgumentParser, settings: str) -> None:
    """Add a recipe and its `key=value` overrides; `settings` is the file that documents them."""
    text = "the name of a shipped recipe, or the path of a YAML file"
    parser.add_argument("recipe", help=text)
    add_overrides(parser, f"settings to change, see {settings}")


def add_models(parser: argparse.ArgumentParser, flag: str) -> None:
    """Add a repeatable option that names reward models, such as `--reward`."""
    text = "a reward model with its checkpoint; may be repeated"
    parser.add_argument(flag, action="append", default=[], metavar="NAME[=PATH]", help=text)


def add_address(parser: argparse.ArgumentParser) -> None:
    """Add the address of a Ray cluster."""
    text = "a running Ray cluster; default: RAY_ADDRESS, or a new one"
    parser.add_argument("--address", help=text)


def add_from_scratch(parser: argparse.ArgumentParser) -> None:
    """Add `--from-scratch`, which begins a run anew and keeps what its folder held."""
    text = "begin anew: move what the run folder holds to a folder beside it"
    parser.add_argument("--from-scratch", action="store_true", help=text)


def add_change(parser: argparse.ArgumentParser) -> None:
    """Add `--change key=value`, which changes a setting of a run that has begun."""
    text = (
        "change a setting of a run that goes on, from its newest checkpoint: learning rate, beta, "
        "reward weights, reference interval, evaluation; may be repeated"
    )
    parser.add_argument("--change", action="append", default=[], metavar="key=value", help=text)


def settings_of(changes: Sequence[str]) -> list[str]:
    """Return the settings that `--change` names.

    Raises:
        ConfigError: There is no `=` in one.
    """
    if wrong := [change for change in changes if "=" not in change]:
        raise ConfigError(f"--change needs key=value, got {wrong[0]!r}")
    return [change.partition("=")[0] for change in changes]


def start_logging() -> None:
    """Log what the command does, from INFO on, to standard error."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def run(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """Return the exit code of a command; an error that is no bug becomes one line.

    `jobs.exit_codes` says which is which. Ctrl-C and SIGTERM where nothing else looks after them
    end the command too.

    Args:
        main: The command.
        argv: Its arguments; None = those of this process.
    """
    try:
        with _sigterm_as_ctrl_c():
            return main(argv)
    except (Exception, KeyboardInterrupt) as error:
        code = code_of(error)
        if code is None:
            raise
        print(_line(error, code), file=sys.stderr)
        return code


def _line(error: BaseException, code: ExitCode) -> str:
    """Return what is said of an error that ends a command."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    text = str(error) or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    again = "start the same command again"
    is_said = code != ExitCode.TRANSIENT or again in text
    return f"error: {text}" if is_said else f"error: {text}; this may pass: {again}"


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt inside the block, as `ray job stop` and systemd send it.

    Not where somebody handles it already, or on another thread, where that is impossible.
    """
    is_free = threading.current_thread() is threading.main_thread()
    if not is_free or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def stopped(folder: Path | str | None = None) -> ExitCode:
    """Say that the same command goes on, with `folder` if given; return the exit code."""
    where = f" with {folder}" if folder else ""
    print(f"stopped; the same command goes on{where}", file=sys.stderr)
    return ExitCode.STOPPED


def output_folder(folder: Path, option: str = "--out") -> Path:
    """Create the folder of an option, and see that it can be written before long work begins.

    Raises:
        ConfigError: It is a file or a URI, or cannot be written.
    """
    _refuse_uri(folder, option)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
            probe.flush()
    except FileExistsError as error:
        raise ConfigError(f"{option} must be a folder, {error.filename} is a file") from error
    except OSError as error:
        raise ConfigError(f"{option}: {folder} cannot be written ({error.strerror})") from error
    return folder


def output_file(path: Path, option: str = "--out") -> Path:
    """See that the file of an option can be written before long work begins.

    Raises:
        ConfigError: It is a folder, or cannot be written.
    """
    if path.is_dir():
        raise ConfigError(f"{option} must be a file, {path} is a folder")
    output_folder(path.absolute().parent, option)
    return path


def _refuse_uri(path: Path, option: str) -> None:
    """Refuse what was a URI before it became a path: a folder `s3:` would be made here."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise ConfigError(
            f"{option} must be on a disk of this machine, got a URI ({path}); of a run in an "
            "object store, run_dir alone says so"
        )


def lasting(folder: str | Path) -> Path:
    """Return where a folder or file of results outlives this process.

    A submitted job works in Ray's copy of the code, which Ray deletes afterwards: a relative path
    is placed in the home directory of the node instead.

    Raises:
        ConfigError: It is a URI.
    """
    folder = Path(folder)
    _refuse_uri(folder, "results")
    if folder.is_absolute() or "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        return folder.absolute()
    placed = Path.home() / folder
    logging.getLogger(__name__).warning("submitted job: results go to %s", placed)
    return placed


def located(reward: RewardConfig) -> RewardConfig:
    """Return the reward with an absolute path if its path is local: workers may run elsewhere."""
    if reward.path is None or not Path(reward.path).exists():
        return reward
    return dataclasses.replace(reward, path=str(Path(reward.path).absolute()))

"""Every command that the documentation shows can be typed as it stands."""

from __future__ import annotations

import importlib
import io
import re
import runpy
import sys
from contextlib import redirect_stderr, redirect_stdout
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from jobs import cli
from jobs.command import parser_of
from tests.pages import PAGES, PLACEHOLDER, ROOT, blocks, commands, made, sources
from videorl.errors import ConfigError
from videorl.guidance.recipe import load_latent_reward_recipe
from videorl.recipes.reading import RECIPES, load_recipe
from videorl.reward_training.recipes import load_reward_recipe

LOADERS = {
    "train": load_recipe,
    "train_reward": load_reward_recipe,
    "train_latent_reward": load_latent_reward_recipe,
}
FOREIGN = {"pytest", "pip", "venv"}
"""Python's modules that are not ours: their arguments are theirs."""
SHELL = {"source", "export", "mkdir", "make"}
"""What prepares a shell, and what has a test of its own."""
CHEAP = ("videorl recipes",)
"""Commands of the documentation that a test runs as they stand."""
SHIPPED = {path.stem for path in RECIPES.rglob("*.yaml")}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@cache
def help_of(start: str, name: str, *first: str) -> str:
    """Return what `--help` of a command prints; a first argument may choose among parsers."""
    printed, argv = io.StringIO(), sys.argv
    try:
        with redirect_stdout(printed), redirect_stderr(printed), pytest.raises(SystemExit) as stop:
            if start == "videorl":
                cli.main([name, *first, "--help"])
            else:
                sys.argv = [name, *first, "--help"]
                runpy.run_module(name, run_name="__main__")
    finally:
        sys.argv = argv
    if stop.value.code and first:  # refused before `--help` was read: no such choice
        return help_of(start, name)
    assert not stop.value.code, f"{start} {name}"
    return printed.getvalue()


def faults(start: str, name: str, words: list[str]) -> list[str]:
    """Return what a command would refuse of its arguments: options, choices, recipe, settings."""
    text = help_of(start, name, *filter(is_word, words[:1]))
    known = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", text, re.MULTILINE)) | {"--help"}
    given = [word.partition("=")[0] for word in words if word.startswith("--") and len(word) > 2]
    found = [option for option in given if option not in known]
    choices = re.search(r"^positional arguments:\n  \{([\w,]+)\}", text, re.MULTILINE)
    if choices and words and words[0] not in choices[1].split(",") and is_word(words[0]):
        found.append(words[0])
    load = LOADERS.get(name.removeprefix("jobs."))
    if load and re.search(r"^  recipe\b", text, re.MULTILINE) and words[:1] and is_word(words[0]):
        settings = [word for word in words[1:] if re.match(r"[a-z][\w.]*=", word)]
        try:
            load(words[0], () if PLACEHOLDER.search(" ".join(settings)) else settings)
        except ConfigError as error:
            found.append(str(error))
    return found


def is_word(text: str) -> bool:
    return bool(re.fullmatch(r"[a-z]\w+", text))


def ours(words: tuple[str, ...]) -> list[str]:
    """Return the command and its arguments if it is ours, or is one of ours that Ray is given."""
    if words[:3] == ("ray", "job", "submit") and "--" in words:
        words = words[words.index("--") + 1 :]
    if Path(words[0]).name == "videorl":
        return list(words[1:])
    is_module = Path(words[0]).name == "python" and words[1:2] == ("-m",)
    return list(words[2:]) if is_module and words[2].startswith("jobs.") else []


def parsed(command: list[str]) -> str:
    """Return what the command's own parser says against its arguments, "" if it takes them."""
    name, *words = command
    module, _ = cli.COMMANDS.get(name, (name, ""))
    main = importlib.import_module(module).main
    if name == "completion":
        main = partial(main, commands=cli.COMMANDS)
    said = io.StringIO()
    with redirect_stderr(said):
        try:
            words = without_redirection(words)
            parser = parser_of(main, *words)
            # A word that chose among parsers is not for the parser that it chose.
            chose = parser.prog.split()[-1:] == words[:1]
            parser.parse_intermixed_args(words[chose:])
        except SystemExit as stop:
            return said.getvalue() if stop.code else ""
    return ""


def without_redirection(words: list[str]) -> list[str]:
    return words[: words.index(">")] if ">" in words else words


def not_accounted_for(page: Path) -> list[str]:
    """Return the commands in blocks that no parser takes, and those that nobody gave a reason."""
    wrong = []
    for block in blocks(page):
        for words in block.commands:
            command, where = ours(words), f"line {block.line}: {' '.join(words)}"
            if command:
                fault = parsed(command)
                wrong += [f"{where}: {fault.splitlines()[-1]}"] if fault else []
            elif not block.why_not_run and words[0] not in SHELL:
                wrong.append(f"{where}: not ours; say above the block why: <!-- not run: … -->")
    return wrong


@each_page
def test_every_command_in_a_block_is_parsed_or_marked(page: Path) -> None:
    assert not not_accounted_for(page)


def test_what_is_neither_parsed_nor_marked_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("""
```bash
ray start --head
videorl scale RUN --min two    # no number
TERM=dumb videorl compare a b --out "c d.html" | cat
```
<!-- not run: needs a cluster -->
```bash
ray status && videorl runs --jsonn
videorl completion bash > file && .venv/bin/python -m jobs.bench.orchestration scale --shared x
make run
```
""")
    found = not_accounted_for(page)
    assert [fault.split(":")[0] for fault in found] == ["line 2"] * 3 + ["line 7"] * 2
    assert "ray start --head: not ours" in found[0]
    assert "invalid int value: 'two'" in found[1]
    assert "cat: not ours" in found[2]
    assert "--jsonn" in found[3]
    assert "--shared" in found[4]


def test_the_table_of_commands_has_them_all() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    assert not [name for name in cli.COMMANDS if f"| `videorl {name}" not in text]


@pytest.mark.parametrize("line", CHEAP)
def test_what_costs_nothing_is_run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = [
        " ".join(words) for page in PAGES for block in blocks(page) for words in block.commands
    ]
    assert line in shown, "documented no more: leave it out here too"
    name, *words = ours(tuple(line.split()))
    main = cli.main if name in cli.COMMANDS else importlib.import_module(name).main
    assert main([name, *words] if name in cli.COMMANDS else words) == 0
    assert capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.* found in sys.modules after import")
@each_page
def test_commands_exist_and_take_their_arguments(page: Path) -> None:
    assert not refused(page)


def test_a_command_that_does_not_exist_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("""
`videorl trian moving_shapes` `python -m jobs.bench.soaks` `videorl scale RUN --most 4` `videorl`
```bash
.venv/bin/python -m jobs.bench.orchestration \\
    size --shared 8  # a choice that there is not
videorl train moving_shape
videorl train moving_shapes num_step=2 run_dir=runs/a
videorl train RECIPE --address auto && make run tests
```
""")
    found = refused(page)
    assert found[:3] == ["trian", "jobs.bench.soaks", "scale: --most"]
    assert found[3] == "jobs.bench.orchestration: size"
    assert "moving_shape" in found[4]
    assert "num_steps" in found[5]
    assert len(found) == 6
    assert list(made(page)) == ["run", "tests"]


def test_modules_that_code_and_scripts_run_exist() -> None:
    wrong = [
        f"{source.relative_to(ROOT)}: {name}"
        for source in sources()
        for name in re.findall(r"-m ((?:jobs|tests)(?:\.\w+)*)", source.read_text())
        if not find_spec(name)
    ]
    assert not wrong


def refused(page: Path) -> list[str]:
    """Return what is wrong with the commands of a page."""
    wrong = []
    for start, name, *words in commands(page):
        if PLACEHOLDER.search(name) or name.startswith("-") or name in FOREIGN:
            continue
        known = name in cli.COMMANDS if start == "videorl" else find_spec(name)
        wrong += [f"{name}: {fault}" for fault in faults(start, name, words)] if known else [name]
    return wrong


@each_page
def test_make_has_the_targets(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"run", "test"} <= targets
    assert set(made(page)) <= targets


@each_page
def test_recipes_that_are_named_are_shipped(page: Path) -> None:
    named = re.findall(r"\brecipes? `(\w+)`", page.read_text())
    assert set(named) <= SHIPPED

"""The documentation as data: its pages, and what they show as code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile, groupby
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("videorl", "actors", "jobs", "docs", "cluster", ".github")
TREE = (*FOLDERS, "tests", ".ci")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md"))),
]
"""Without the changelog, which keeps the names that things had."""
PLACEHOLDER = re.compile(r"\b[A-Z][A-Z_]*\b(?!\.md)|\bmy_|<|…|\.\.\.|\*")
"""What stands for something of the reader's own: RECIPE, my_module, <name>, …"""


@cache
def code(page: Path) -> tuple[str, ...]:
    """Return what a page shows as code: each span, and each line of a fenced block."""
    spans, lines = [], []
    # Odd parts are fenced blocks; their first line names the language.
    for number, part in enumerate(re.split(r"^ *```", page.read_text(), flags=re.MULTILINE)):
        if number % 2:
            lines += part.replace("\\\n", " ").splitlines()[1:]
        else:
            spans += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", part)]
    return (*spans, *lines)


@dataclass(frozen=True)
class Block:
    """A fenced block of shell commands."""

    line: int
    """Where it begins, counted from 1."""
    why_not_run: str
    """Of the comment `<!-- not run: … -->` above it; empty = none."""
    commands: tuple[tuple[str, ...], ...]
    """Its commands as words, those behind `&&` and `|` too, without variables that are set."""


def blocks(page: Path) -> list[Block]:
    """Return the `bash` blocks of a page, those in lists too."""
    text, found = page.read_text(), []
    pattern = r"(?:<!-- not run: (.+?) -->\n\s*)?^( *)```bash\n(.*?)^ *```$"
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        why, _, body = match.groups()
        lines = body.replace("\\\n", " ").splitlines()
        words = [shlex.split(line, comments=True) for line in lines]
        split = [command for line in words for command in _simple(line)]
        found.append(Block(text.count("\n", 0, match.start()) + 1, why or "", tuple(split)))
    return found


def _simple(words: list[str]) -> Iterator[tuple[str, ...]]:
    """Yield the simple commands of a line."""
    for joined, command in groupby(words, ("&&", "||", "|", ";", "&").__contains__):
        plain = tuple(dropwhile(lambda word: bool(re.match(r"\w+=", word)), command))
        if not joined and plain:
            yield plain


def commands(page: Path) -> Iterator[list[str]]:
    """Yield our commands that a page shows, as `[videorl, train, ...]` and `[-m, MODULE, ...]`."""
    for line in code(page):
        try:
            words = shlex.split(line, comments=True)
        except ValueError:  # a span that is no command may hold a lone quote
            words = line.split()
        for index, word in enumerate(words[:-1]):
            if word in ("videorl", ".venv/bin/videorl") or (word == "-m" and index):
                start = ["videorl" if word != "-m" else word]
                yield [*start, *words[index + 1 :]]


def made(page: Path) -> Iterator[str]:
    """Yield the targets of `make` that a page names."""
    for line in code(page):
        for call in re.findall(r"(?:^|[\s;&])make((?: [a-z]+)+)", line):
            yield from call.split()


def sources() -> list[Path]:
    """Return the files of the product, its scripts and its workflows that may name others."""
    kinds = {".py", ".yaml", ".yml", ".sh", ""}
    folders = [ROOT / folder for folder in TREE if folder not in ("docs", "tests")]
    paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [ROOT / "Makefile", *sorted(path for path in paths if path.suffix in kinds)]

"""Hooks of mkdocs: what the pages say on GitHub, as a site that stands by itself.

Pages link to code, recipes and tests by relative paths. A site has no repository around it, so it
carries what is linked to: each file as a page with its lines, each folder as the list of its files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from videorl.recipes.kinds import FOLDERS, headline, shipped

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "project.md",
    "CONTRIBUTING.md": "contributing.md",
    "cluster/README.md": "cluster.md",
}
"""Pages of the repository that do not lie in docs/, and what they are called here."""
SHIM = "https://unpkg.com/iframe-worker/shim"
"""What the plugin `offline` has pages load."""
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from elsewhere, and whatever the pages link to."""
    for path, name in ELSEWHERE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text("utf-8")))
    linked: dict[str, Path] = {}
    for page in files.documentation_pages():
        for match in LINK.finditer(_without_code(_filled(page.content_string))):
            target = (_place(page).parent / match[1]).resolve()
            if (name := _name(target)) and files.get_file_from_path(name) is None:
                linked[name] = target
    for name, target in linked.items():
        files.append(File.generated(config, name, content=_shown(target)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn relative links into those of the site, and lists into those of its Markdown."""

    def relink(match: re.Match[str]) -> str:
        name = _name((_place(page.file).parent / match[1]).resolve())
        if not name:  # what is not there is reported by mkdocs
            return match[0]
        folder = os.path.dirname(page.file.src_uri)
        return os.path.relpath(name, folder or ".") + (match[2] or "")

    return indented(_outside_code(_filled(markdown), lambda part: LINK.sub(relink, part)))


def on_post_build(config: MkDocsConfig) -> None:
    """Have the search of pages in a folder do without a script from another host."""
    site = Path(config.site_dir)
    for path in site.rglob("*.html"):
        if SHIM in (text := path.read_text("utf-8")):
            own = os.path.relpath(site / "javascripts/file_worker.js", path.parent)
            path.write_text(text.replace(SHIM, own), "utf-8")


def recipe_tables() -> str:
    """Return a table of the shipped recipes per command, from the files themselves."""
    tables = []
    for command in FOLDERS:
        rows = [f"## videorl {command}", "", "| recipe | what it is | verified |", "|---|---|---|"]
        for path in shipped(command):
            what, verified = headline(path)
            link = os.path.relpath(path, ROOT / "docs")
            rows.append(f"| [`{path.stem}`]({link}) | {what} | {verified} |")
        tables.append("\n".join(rows))
    return "\n\n".join(tables)


def indented(markdown: str) -> str:
    """Return Markdown whose list items hold what GitHub has them hold.

    GitHub takes lines for part of an item that are indented as far as its text. The Markdown of
    the site wants four spaces per level, and a blank line before a list.
    """
    lines: list[str] = []
    texts: list[int] = []  # columns where the text of each open item begins
    fence = ""
    for line in markdown.splitlines():
        words = line.lstrip(" ")
        column = len(line) - len(words)
        if not words:
            lines.append("")
            continue
        while texts and column < texts[-1] and not fence:
            texts.pop()
        item = re.match(r"([-*+]|\d+\.) +(?=\S)", words) if not fence else None
        if item and not texts and lines and lines[-1] and not _is_item(lines[-1]):
            lines.append("")
        lines.append(" " * (4 * len(texts) + column - (texts[-1] if texts else 0)) + words)
        if words.startswith("```"):
            fence = "" if fence else "```"
        if item:
            texts.append(column + item.end())
    return "\n".join(lines) + "\n"


def _filled(markdown: str) -> str:
    return markdown.replace("<!-- recipes -->", recipe_tables())


def _is_item(line: str) -> bool:
    return bool(re.match(r" *([-*+]|\d+\.) ", line)) or line.startswith("    ")


def _place(file: File) -> Path:
    """Return where a page lies in the repository."""
    own = {name: path for path, name in ELSEWHERE.items()}
    return ROOT / own.get(file.src_uri, f"docs/{file.src_uri}")


def _name(target: Path) -> str:
    """Return what a file or folder of the repository is called in the site; "" = not there."""
    if not target.is_relative_to(ROOT) or not target.exists():
        return ""
    path = target.relative_to(ROOT).as_posix()
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if target.is_file() and target.is_relative_to(ROOT / "docs"):
        return target.relative_to(ROOT / "docs").as_posix()
    path = re.sub(r"(^|/)\.", r"\1_", path)  # mkdocs leaves out what is hidden
    return f"source/{path}/index.html" if target.is_dir() else f"source/{path}.html"


def _shown(target: Path) -> str:
    """Return a file as a page with numbered lines, or a folder as the list of its files."""
    title = target.relative_to(ROOT).as_posix()
    if target.is_dir():
        names = sorted(path.relative_to(target).as_posix() for path in target.rglob("*.*"))
        listed = "".join(f"<li>{escape(name)}</li>" for name in names if "__pycache__" not in name)
        return f"<!doctype html><meta charset=utf-8><title>{title}</title><h1>{title}</h1>{listed}"
    try:
        lexer: Any = get_lexer_for_filename(target.name)
    except ClassNotFound:
        lexer = TextLexer()
    formatter = HtmlFormatter(full=True, title=title, linenos="inline", style="friendly")
    return highlight(target.read_text("utf-8"), lexer, formatter)


def _without_code(text: str) -> str:
    return _outside_code(text, lambda part: part, keep=False)


def _outside_code(text: str, change: Callable[[str], str], keep: bool = True) -> str:
    """Change what stands outside of fenced blocks; `keep` says whether to return these too."""
    parts = re.split(r"(^ *```.*?^ *```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(
        change(part) if number % 2 == 0 else part * keep for number, part in enumerate(parts)
    )

"""The documentation names only what exists, and every number that is logged."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.pages import PAGES, PLACEHOLDER, ROOT, TREE, code, sources
from videorl import loop, rollouts, selection, step_record
from videorl.learning import from_candidates, learner
from videorl.objectives import dpo, objective, regression
from videorl.rewards import scoring

CODE = "\n".join(path.read_text() for path in (ROOT / "videorl").rglob("*.py"))
PATH = re.compile(rf"(?<![\w/.~-])(?:{'|'.join(map(re.escape, TREE))})/[\w/.*<>…-]*")
FILES = {path.name for folder in TREE for path in (ROOT / folder).rglob("*")}
FILES |= {path.name for path in ROOT.iterdir()}
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def anchors(page: Path) -> set[str]:
    """Return the fragments that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def exists(path: str) -> bool:
    """Tell whether a path is there; of one with placeholders, the folder before them."""
    fixed = re.split(PLACEHOLDER, path)[0]
    return (ROOT / (path if fixed == path else fixed.rpartition("/")[0])).exists()


def is_ours(name: str) -> bool:
    """Tell whether a dotted name is a module of ours, is defined in one, or is an entry point."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        stem = ROOT.joinpath(*parts[:length])
        source = stem / "__init__.py" if stem.is_dir() else stem.with_suffix(".py")
        if source.is_file() and length == len(parts):
            return True
        if source.is_file() and parts[length] in defined(ast.parse(source.read_text()).body):
            return True
    return f'"{name}"' in (ROOT / "pyproject.toml").read_text()


def defined(statements: Sequence[ast.stmt]) -> set[str]:
    """Return the names that a module's statements make, those under `if TYPE_CHECKING` too."""
    names: set[str] = set()
    for node in statements:
        match node:
            case ast.FunctionDef(name) | ast.ClassDef(name) | ast.AnnAssign(target=ast.Name(name)):
                names.add(name)
            case ast.Import(found) | ast.ImportFrom(names=found):
                names |= {alias.asname or alias.name for alias in found}
            case ast.Assign(targets=[ast.Name("__all__")], value=value):
                names |= set(ast.literal_eval(value))
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.If(body=body):
                names |= defined(body)
            case _:
                pass
    return names


@pytest.mark.parametrize(
    "page", [*PAGES, ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere_and_say_where(page: Path) -> None:
    wrong = []
    for text, link in re.findall(r"\[([^\]]*)\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve()
        is_file = re.fullmatch(r"`([\w./-]+\.(?:py|md|sh|yaml))`", text)
        if (
            not target.exists()
            or (fragment and fragment not in anchors(target if path else page))
            or (is_file and not str(target).endswith(f"/{is_file[1]}"))
        ):
            wrong.append(f"[{text}]({link})")
    assert not wrong


@each_page
def test_named_files_and_modules_exist(page: Path) -> None:
    shown = "\n".join(code(page))
    wrong = [path for path in PATH.findall(shown) if not exists(path.rstrip("."))]
    for name in re.findall(r"(?<![\w/.*<>-])\w+\.(?:py|sh|toml)(?![\w/])", shown):
        if name not in FILES and not PLACEHOLDER.match(name):
            wrong.append(name)
    names = re.findall(r"(?<![\w./:-])(?:videorl|actors|jobs|tests)(?:\.\w+)+", shown)
    for module, found in re.findall(r"^ *from ([a-z]\S*) import (.+)", shown, re.MULTILINE):
        names += [f"{module}.{name}" for name in found.split(", ") if module in names]
    wrong += [name for name in names if not is_ours(name) and not PLACEHOLDER.search(name)]
    assert not wrong


def test_files_that_the_code_names_exist() -> None:
    wrong = [
        f"{source.relative_to(ROOT)}: {path}"
        for source in sources()
        for path in PATH.findall(source.read_text())
        if re.search(r"\.(py|md|sh|ya?ml)$", path) and not exists(path)
    ]
    assert not wrong


def test_every_logged_number_is_explained() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    sources = "".join(
        inspect.getsource(module)
        for module in (dpo, objective, regression, learner, from_candidates, loop, step_record)
    )
    for name in re.findall(r'"([a-z]+/[a-z_]+)"', sources):
        assert f"`{name}`" in page, name
    parts = (
        scoring.check,
        scoring.checked_scores,
        selection.Selection.why_no_pair,
        selection.Dominating.why_no_pair,
        rollouts.Rollouts.take,
    )
    for reason in re.findall(r'"([a-z]+_[a-z_]+)"', "".join(map(inspect.getsource, parts))):
        assert re.search(rf"`(candidates|groups)/(dropped|no_pair)_{reason}`", page), reason


def test_every_explained_number_is_logged() -> None:
    names = re.findall(r"`([a-z]+/[a-z_]+)`", (ROOT / "docs/metrics.md").read_text())
    assert "learn/loss" in names
    for name in names:
        reason = re.sub(r".*/(dropped|no_pair)_", "", name)
        assert f'"{reason}"' in CODE, name

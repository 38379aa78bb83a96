"""The documentation names only what exists, and every number that is logged."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from videorl import loop, rollouts, selection, step_record
from videorl.learning import from_candidates, learner
from videorl.objectives import dpo, regression
from videorl.rewards import scoring

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = "\n".join(path.read_text() for path in (ROOT / "videorl").rglob("*.py"))


def anchors(page: Path) -> set[str]:
    """Return the fragments that GitHub gives to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, fragment = link.partition("#")
        target = page.parent / path
        assert target.exists(), link
        assert not fragment or fragment in anchors(target if path else page), link
    for path in re.findall(r"(?:videorl|actors|jobs|tests|cluster)/[\w/.-]+\.(?:py|sh|md)\b", text):
        assert (ROOT / path).exists() or Path(path).stem == "NAME", path


def test_every_logged_number_is_explained() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    sources = "".join(
        inspect.getsource(one)
        for one in (dpo, regression, learner, from_candidates, loop, step_record)
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
    assert "dpo/loss" in names
    for name in names:
        reason = re.sub(r".*/(dropped|no_pair)_", "", name)
        assert f'"{reason}"' in CODE, name

"""The documentation as a site: built without warnings, complete, and in need of nothing else."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import sync_playwright

from tests.pages import ROOT
from videorl.recipes.kinds import FOLDERS, headline, shipped

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/site_hooks.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, hooks: ModuleType) -> Path:
    """The whole site; a warning ends the build."""
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder))
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


def test_recipes_are_listed_as_their_files_say(site: Path) -> None:
    text = (site / "recipes.html").read_text()
    for command in FOLDERS:
        for path in shipped(command):
            _, verified = headline(path)
            link = f"source/{path.relative_to(ROOT)}.html"
            row = re.search(rf'<tr>\n<td><a href="{link}">.*?</tr>', text, re.DOTALL)
            assert row, path.stem
            assert verified.split("(")[0].split(";")[0] in row[0], path.stem


def test_public_names_are_in_the_reference(site: Path) -> None:
    functions = (site / "api/functions.html").read_text()
    assert all(f'id="videorl.api.{name}"' in functions for name in ("train", "sample", "score"))
    settings = (site / "api/settings.html").read_text()
    assert "Gradients with a larger norm are scaled down" in settings


def test_links_into_the_code_lead_to_its_lines(site: Path) -> None:
    page = (site / "overview.html").read_text()
    assert 'href="source/videorl/loop.py.html"' in page
    assert "admit" in (site / "source/videorl/loop.py.html").read_text()
    assert "<li>" in (site / "source/tests/fuzz/index.html").read_text()


def test_no_page_asks_another_host(site: Path) -> None:
    asked = re.compile(r'<(?:script|link|img|iframe|video)[^>]*(?:src|href)="?(?:https?:)?//')
    wrong = [path for path in site.rglob("*.html") if asked.search(path.read_text())]
    assert not wrong


def test_lists_hold_what_they_hold_on_github(hooks: ModuleType) -> None:
    text = (
        "words:\n1. one\n\n   ```py\n   - no item\n   ```\n   - inner\n     more\n2. two\n\nend\n"
    )
    assert hooks.indented(text) == (
        "words:\n\n1. one\n\n    ```py\n    - no item\n    ```\n    - inner\n        more\n"
        "2. two\n\nend\n"
    )


@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's chromium")
def test_a_reader_without_a_network_can_read_and_search(site: Path) -> None:
    asked: list[str] = []
    with sync_playwright() as driver:
        options = ["--no-sandbox", "--allow-file-access-from-files"]
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=options)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        for name in ("overview", "api/settings", "index"):
            page.goto((site / f"{name}.html").as_uri())
        page.focus(".md-search__input")  # only then the index is read
        page.locator(".md-search-result__meta", has_text="Type to start").wait_for(state="attached")
        page.keyboard.type("displacement")
        page.wait_for_selector(".md-search-result__link", state="attached")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
